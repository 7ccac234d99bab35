"""`DetectionCheckpointer`: fvcore's, for the model zoo's formats as well."""

import os
from collections.abc import Callable
from typing import Any, BinaryIO
from urllib.parse import parse_qs

import torch
from fvcore.common.checkpoint import Checkpointer, _IncompatibleKeys

from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

from .safe_load import load_plain
from .weight_names import HEURISTICS, as_checkpoint, match_names


class DetectionCheckpointer(Checkpointer):
    """Saves and loads a model and what trains it.

    Loads the files that `save` writes, state_dicts, detectron2's and Caffe2's .pkl, pycls' .pyth,
    and torchvision's ResNets; from local paths, http(s):// and detectron2://. No file can run code.
    A file that is saved replaces its forerunner when it is whole.

    Args:
        save_dir: where `save` writes; "" writes nothing.
        save_to_disk: whether `save` writes; None: on the main process only.
        checkpointables: by name, what else has state_dict() and load_state_dict().
    """

    def __init__(
        self,
        model: torch.nn.Module,
        save_dir: str = "",
        *,
        save_to_disk: bool | None = None,
        **checkpointables: Any,
    ) -> None:
        if save_to_disk is None:
            save_to_disk = comm.is_main_process()
        super().__init__(model, save_dir, save_to_disk=save_to_disk, **checkpointables)
        self.path_manager = PathManager
        self._use_heuristics = False

    def load(self, path: str, *args, **kwargs) -> dict[str, Any]:
        """Load the model and the checkpointables, and return what else the file holds.

        Args:
            path: "" loads nothing. "?matching_heuristics=True" at its end matches names by their
                ends, for weights of a part of the model.

        Raises:
            FileNotFoundError: no such file, or it cannot be downloaded.
            ValueError: it is damaged, holds more than weights, or asks for another query.
        """
        if not path:
            return super().load(path, *args, **kwargs)
        name, _, query = path.partition("?")
        options = parse_qs(query)
        self._use_heuristics = options.pop(HEURISTICS, None) == ["True"]
        if options:
            raise ValueError(f"{path}: unknown query {', '.join(options)}; take it away")
        local = self.path_manager.get_local_path(name)
        if not os.path.isfile(local):
            raise FileNotFoundError(f"{name}: no such checkpoint; correct the path")
        return super().load(local, *args, **kwargs)

    def _load_file(self, filename: str) -> dict[str, Any]:
        data = as_checkpoint(load_plain(filename), filename)
        if self._use_heuristics:
            data[HEURISTICS] = True
        return data

    def _load_model(self, checkpoint: dict[str, Any]) -> _IncompatibleKeys:
        if checkpoint.get(HEURISTICS, False):
            self._convert_ndarray_to_tensor(checkpoint["model"])
            checkpoint["model"] = match_names(self.model.state_dict(), checkpoint["model"])
        incompatible = super()._load_model(checkpoint)
        # Old files lack the pixel statistics, which come from the config, and hold anchors, which
        # are computed now; a frozen norm counts no batches.
        own_buffers = {name for name, _ in self.model.named_buffers(recurse=False)}
        harmless = own_buffers & {"pixel_mean", "pixel_std"}
        _keep(incompatible.missing_keys, lambda key: key not in harmless)
        _keep(
            incompatible.unexpected_keys,
            lambda key: (
                "anchor_generator.cell_anchors" not in key
                and not key.endswith("num_batches_tracked")
            ),
        )
        return incompatible

    def save(self, name: str, **kwargs: Any) -> None:
        """Write `save_dir`/`name`.pth: the model, the checkpointables and `kwargs`."""
        if not self.save_dir or not self.save_to_disk:
            return
        data = {"model": self.model.state_dict()}
        data |= {key: obj.state_dict() for key, obj in self.checkpointables.items()}
        data |= kwargs
        path = os.path.join(self.save_dir, f"{name}.pth")
        self.logger.info("Saving checkpoint to %s", path)
        _write_whole(path, lambda file: torch.save(data, file))
        self.tag_last_checkpoint(os.path.basename(path))

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Let `resume_or_load` resume from this file of `save_dir`."""
        path = os.path.join(self.save_dir, "last_checkpoint")
        _write_whole(path, lambda file: file.write(last_filename_basename.encode()))


def _keep(names: list[str], is_kept: Callable[[str], bool]) -> None:
    names[:] = filter(is_kept, names)


def _write_whole(path: str, write: Callable[[BinaryIO], Any]) -> None:
    """Replace the file at `path` at once: a crash leaves the old one or the new one."""
    temporary = f"{path}.tmp"
    with open(temporary, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
