"""Where `import detectron2` comes from: the real one if it is installed, else the embedded subset.

The embedded subset is appended to `sys.path`, so that there is one name and one module: pickles and
spawned workers resolve it like any other package. Only this file knows that there are two.
"""

import importlib.util
import os
import sys
from pathlib import Path

EMBEDDED = str(Path(__file__).parent / "embedded")


def provide_detectron2() -> str:
    """Make `import detectron2` work and return which one it is: "real" or "embedded".

    The environment variable M2F_DETECTRON2 (auto | real | embedded) forces a choice.

    Raises:
        ValueError: M2F_DETECTRON2 has another value.
        ImportError: the forced choice is not available in this process.
    """
    choice = os.environ.get("M2F_DETECTRON2", "auto")
    if choice not in ("auto", "real", "embedded"):
        raise ValueError(f"M2F_DETECTRON2={choice!r}; set it to auto, real or embedded")
    if EMBEDDED in sys.path:  # inherited by a spawned worker: decide afresh, in the same way
        sys.path.remove(EMBEDDED)
    if choice == "embedded":
        sys.path.insert(0, EMBEDDED)
    else:
        sys.path.append(EMBEDDED)
    origin = _origin()
    provider = "embedded" if origin.startswith(EMBEDDED) else "real"
    if choice not in ("auto", provider):
        raise ImportError(
            f"M2F_DETECTRON2={choice}, but detectron2 was found at {origin}; "
            + (
                "install it: pip install 'git+https://github.com/facebookresearch/detectron2'"
                if choice == "real"
                else "import mask2former before detectron2"
            )
        )
    return provider


def _origin() -> str:
    loaded = sys.modules.get("detectron2")
    if loaded is not None:
        return loaded.__file__ or ""
    spec = importlib.util.find_spec("detectron2")
    return spec.origin or "" if spec else ""
