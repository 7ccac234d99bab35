"""Checkpoints that cannot run code, are never half written, and say what does not fit."""

import os
import socket
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qs

import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from mask2former.engine.partial_weights import BIAS_INDEX, fit_weights, gaps, settings_of
from mask2former.engine.weight_files import HEURISTICS, read_weights

# Training may start from weights for part of the model only (ImageNet's backbone; another number
# of classes). But a backbone that is not the model's own is a mistake: of its keys, and of those
# that the file has for it, this share must fit. The rest is e.g. an ImageNet classifier.
BACKBONE_SHARE = 0.9
BACKBONE = "backbone."

# Differences that change nothing: counters of batch norm, what only a training's loss needs, and
# what the model computes from its config.
HARMLESS = ("num_batches_tracked", "criterion.", "pixel_mean", "pixel_std", BIAS_INDEX)

NUM_EXAMPLES = 3

DOWNLOAD_TIMEOUT = 10  # seconds without an answer; the real detectron2 would wait for minutes


class Checkpointer(DetectionCheckpointer):
    """DetectionCheckpointer that loads tensors and plain containers only, and saves atomically.

    Resuming, and `must_fit` (for evaluation), demand that the weights fit the model in every key.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        save_to_disk: bool | None = None,
        must_fit: bool = False,
        **checkpointables: Any,
    ) -> None:
        super().__init__(model, save_dir, save_to_disk=save_to_disk, **checkpointables)
        self.must_fit = must_fit
        self._path = ""  # as the user gave it
        self._by_heuristics = False
        self._advice = ""  # what else to do about a file that cannot be read

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """The last checkpoint, if `resume` and there is one; else only the model of `path`.

        Raises:
            FileNotFoundError, ValueError: as `load`.
        """
        if resume and self.has_checkpoint():
            self.must_fit = True
            pointer = os.path.join(self.save_dir, "last_checkpoint")
            self._advice = f", or name an earlier checkpoint in {pointer}"
            if not os.path.isfile(self.get_checkpoint_file()):
                raise FileNotFoundError(
                    f"{pointer} does not name a checkpoint beside it; write the name of one into "
                    "it, or start anew without --resume"
                )
        return super().resume_or_load(path, resume=resume)

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """
        Raises:
            FileNotFoundError: no such file, or it cannot be downloaded.
            ValueError: it is not whole, holds more than weights, or does not fit the model.
        """
        if not path:
            if self.must_fit:
                raise ValueError("MODEL.WEIGHTS is empty; name the weights to evaluate")
            return super().load(path, *args, **kwargs)
        self._path = path
        url, _, query = path.partition("?")
        self._by_heuristics = parse_qs(query).get("matching_heuristics") == ["True"]
        return super().load(self._local_path(url), *args, **kwargs)

    def _local_path(self, url: str) -> str:
        usual = socket.getdefaulttimeout()
        socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
        try:
            local = self.path_manager.get_local_path(url)
        except OSError as error:
            # The embedded detectron2 has made a sentence of it already.
            cause = error.__cause__ if isinstance(error, FileNotFoundError) else error
            reason = getattr(cause, "reason", cause)
            raise FileNotFoundError(
                f"{url}: cannot be downloaded ({reason}); download it elsewhere and set "
                "MODEL.WEIGHTS to the file, or to '' to start from random weights"
            ) from error
        finally:
            socket.setdefaulttimeout(usual)
        if not os.path.isfile(local):
            raise FileNotFoundError(f"{url}: no such weight file; correct MODEL.WEIGHTS")
        return local

    def _load_file(self, filename: str) -> dict[str, Any]:
        try:
            data = read_weights(filename)
        except ValueError as error:
            raise ValueError(f"{error}{self._advice}") from error
        if self._by_heuristics:
            data[HEURISTICS] = True
        return data

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        state = self.model.state_dict()
        notes: list[str] = []
        self._convert_ndarray_to_tensor(checkpoint["model"])
        if not self.must_fit:
            by_endings = checkpoint.get(HEURISTICS, False)
            checkpoint["model"], notes = fit_weights(state, checkpoint["model"], by_endings)
        incompatible = super()._load_model(checkpoint)
        wrong_shape = {key for key, *_ in incompatible.incorrect_shapes}
        missing = [k for k in incompatible.missing_keys if k not in wrong_shape]
        found = {
            "missing": [k for k in missing if not _is_harmless(k)],
            "unexpected": [k for k in incompatible.unexpected_keys if not _is_harmless(k)],
            "wrong_shapes": [x for x in incompatible.incorrect_shapes if not _is_harmless(x[0])],
        }
        problem = misfit(set(state), **found, must_fit=self.must_fit)
        if problem:
            raise ValueError(f"{self._path}: {problem}")
        for sentence in notes + gaps(set(state), **found):
            self.logger.warning("%s: %s", self._path, sentence)
        return incompatible

    def _log_incompatible_keys(self, incompatible: Any) -> None:
        """fvcore's, a line for each key, is not needed: `_load_model` has said it."""

    def save(self, name: str, **kwargs: Any) -> None:
        """Write "{name}.pth" under `save_dir`: the model, the checkpointables, and `kwargs`.

        The file appears when it is whole; until then the one before it stays.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        data = {"model": self.model.state_dict()}
        data |= {key: obj.state_dict() for key, obj in self.checkpointables.items()}
        data |= kwargs
        basename = f"{name}.pth"
        path = os.path.join(self.save_dir, basename)
        self.logger.info("Saving checkpoint to %s", path)
        write_atomically(path, lambda file: torch.save(data, file))
        self.tag_last_checkpoint(basename)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        path = os.path.join(self.save_dir, "last_checkpoint")
        write_atomically(path, lambda file: file.write(last_filename_basename.encode()))


def write_atomically(path: str, write: Callable[[Any], Any]) -> None:
    """Let `write` fill a file beside `path`, then put it in its place."""
    temporary = f"{path}.tmp"
    with open(temporary, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def misfit(
    model_keys: set[str],
    *,
    missing: Sequence[str],
    unexpected: Sequence[str],
    wrong_shapes: Sequence[tuple[str, tuple, tuple]],
    must_fit: bool,
) -> str | None:
    """Why these weights are not for this model, in a sentence; None if they are.

    Args:
        model_keys: all of the model's.
        missing, unexpected: keys that only the model has, and that only the file has.
        wrong_shapes: (key, shape in the file, shape in the model).
        must_fit: all keys, not only the backbone's.
    """
    left_out = {*missing, *(key for key, *_ in wrong_shapes)}
    if must_fit:
        fits = not left_out and not unexpected
    else:
        fits = len(left_out) < len(model_keys) and _backbone_fits(model_keys, left_out, unexpected)
    if fits:
        return None
    shapes = [f"{key} {found} instead of {wanted}" for key, found, wanted in wrong_shapes]
    parts = [
        _examples("missing", missing),
        _examples("unexpected", unexpected),
        _examples("of another shape", shapes),
    ]
    found = ", ".join(part for part in parts if part)
    settings = None if missing or unexpected else settings_of(wrong_shapes)
    advice = "use the config that they were trained with, or other weights"
    if settings:
        advice = f"set {' and '.join(settings)}, or use other weights"
    return (
        f"weights of another architecture than the model, which has {len(model_keys)} keys: "
        f"{found}; {advice}"
    )


def _backbone_fits(model_keys: set[str], left_out: set[str], unexpected: Sequence[str]) -> bool:
    own = {key for key in model_keys if key.startswith(BACKBONE)}
    num_filled = len(own - left_out)
    is_bare_backbone = model_keys - left_out <= own
    num_extra = sum(is_bare_backbone or key.startswith(BACKBONE) for key in unexpected)
    share = BACKBONE_SHARE
    return num_filled >= share * len(own) and num_filled >= share * (num_filled + num_extra)


def _is_harmless(key: str) -> bool:
    return key.startswith(HARMLESS) or key.endswith(HARMLESS)


def _examples(what: str, items: Sequence[str]) -> str:
    if not items:
        return ""
    more = ", ..." if len(items) > NUM_EXAMPLES else ""
    return f"{len(items)} {what} ({', '.join(items[:NUM_EXAMPLES])}{more})"
