"""Two global tables: name -> function that lists a dataset's samples, and name -> its metadata."""

import copy
from collections import UserDict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

__all__ = ["DatasetCatalog", "Metadata", "MetadataCatalog"]


class CatalogConflict(AssertionError, ValueError):
    """A name or an attribute would get a second meaning.

    It is an AssertionError too, because that is what scripts written for detectron2 catch.
    """


class _DatasetCatalog(UserDict):
    """Dataset names and the functions that load them: `() -> list[dict]`.

    The functions are called at every `get`, so that importing a dataset's module costs nothing.
    """

    def register(self, name: str, func: Callable[[], list[dict]]) -> None:
        """Make `name` known.

        Raises:
            CatalogConflict: `name` is registered already, or `func` is no function.
        """
        if not callable(func):
            raise CatalogConflict(
                f"dataset {name!r} was registered with a {type(func).__name__}; "
                "register a function that returns its samples"
            )
        if name in self:
            raise CatalogConflict(
                f"dataset {name!r} is registered already; choose another name or "
                "DatasetCatalog.remove it first"
            )
        self[name] = func

    def get(self, name: str) -> list[dict]:
        """The samples of a dataset, loaded anew by its function.

        Raises:
            KeyError: no dataset has this name.
        """
        if name not in self:
            raise KeyError(
                f"dataset {name!r} is not registered; there are: {', '.join(self) or 'none'}"
            )
        return self[name]()

    def list(self) -> list[str]:
        """All registered names."""
        return list(self.keys())

    def remove(self, name: str) -> None:
        """Forget a dataset; KeyError if there is none of this name."""
        del self[name]

    def __str__(self) -> str:
        return f"DatasetCatalog(registered datasets: {', '.join(self)})"

    __repr__ = __str__


class Metadata(SimpleNamespace):
    """What is known of a dataset beside its samples: class names, colours, paths.

    An attribute can be set once; setting it again to an equal value is allowed. This catches
    two datasets, or two definitions of one, that share a name.
    """

    name: str = "N/A"

    def __getattr__(self, key: str) -> Any:  # only called for what is absent
        known = ", ".join(self.__dict__) or "nothing"
        raise AttributeError(
            f"the metadata of dataset {self.name!r} has no {key!r}; it has {known}"
        )

    def __setattr__(self, key: str, value: Any) -> None:
        missing = object()
        old = self.__dict__.get(key, missing)
        if old is not missing and old != value:
            raise CatalogConflict(
                f"{key!r} in the metadata of dataset {self.name!r} is {old!r} "
                f"and cannot become {value!r}; use another dataset name"
            )
        super().__setattr__(key, value)

    def as_dict(self) -> dict[str, Any]:
        """A shallow copy: changing the dict does not change the metadata."""
        return copy.copy(self.__dict__)

    def set(self, **kwargs: Any) -> "Metadata":
        """Set several attributes; returns itself, to be chained."""
        for key, value in kwargs.items():
            setattr(self, key, value)
        return self

    def get(self, key: str, default: Any = None) -> Any:
        """The attribute, or `default` if it is absent."""
        return self.__dict__.get(key, default)


class _MetadataCatalog(UserDict):
    """Metadata by dataset name; a name that is asked for comes into being."""

    def get(self, name: str) -> Metadata:
        """The one Metadata object of this name, made empty if there was none."""
        if not name:
            raise CatalogConflict("a dataset's name is empty; give one")
        if name not in self:
            self[name] = Metadata(name=name)
        return self[name]

    def list(self) -> list[str]:
        """All names that have metadata."""
        return list(self.keys())

    def remove(self, name: str) -> None:
        """Forget the metadata of this name; KeyError if there is none."""
        del self[name]

    def __str__(self) -> str:
        return f"MetadataCatalog(registered metadata: {', '.join(self)})"

    __repr__ = __str__


DatasetCatalog = _DatasetCatalog()
MetadataCatalog = _MetadataCatalog()
