"""`torch.<name>.amp`: the oldest spelling of mixed precision, without torch.autocast."""

from contextlib import ContextDecorator
from types import TracebackType

import torch

from simulated_device import settings

__all__ = ["GradScaler", "autocast"]


def get_amp_supported_dtype() -> list[torch.dtype]:
    """What torch.autocast asks the device's module for."""
    return [torch.float16, torch.bfloat16]


class autocast(ContextDecorator):
    """Mixed precision on the device, in float16 unless told otherwise."""

    def __init__(
        self, enabled: bool = True, dtype: torch.dtype = torch.float16, cache_enabled: bool = True
    ) -> None:
        self.wanted = (enabled, dtype, cache_enabled)

    def _recreate_cm(self) -> "autocast":
        return autocast(*self.wanted)

    def __enter__(self) -> "autocast":
        name = settings.name()
        self.before = (
            torch.is_autocast_enabled(name),
            torch.get_autocast_dtype(name),
            torch.is_autocast_cache_enabled(),
        )
        _set(*self.wanted)
        torch.autocast_increment_nesting()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()
        _set(*self.before)


def _set(enabled: bool, dtype: torch.dtype, cache_enabled: bool) -> None:
    torch.set_autocast_enabled(settings.name(), enabled)
    torch.set_autocast_dtype(settings.name(), dtype)
    torch.set_autocast_cache_enabled(cache_enabled)


class GradScaler(torch.amp.GradScaler):
    def __init__(self, *args: float, **kwargs: float) -> None:
        super().__init__(settings.name(), *args, **kwargs)


def forbid_new_spelling() -> None:
    """torch.amp.GradScaler refuses the device; torch.autocast does for want of the dtypes above."""
    construct = torch.amp.GradScaler.__init__

    def init(self: torch.amp.GradScaler, device: str = "cuda", *args: float, **kw: float) -> None:
        if type(self) is torch.amp.GradScaler and device == settings.name():
            raise RuntimeError(f"torch.amp.GradScaler does not know the device {device}")
        construct(self, device, *args, **kw)

    torch.amp.GradScaler.__init__ = init
