"""Small drawn streets in the layout of Cityscapes, for machines without the real one."""

from mask2former.data.mini.cityscapes import (
    MiniSpec,
    ensure_mini_cityscapes,
    make_mini_cityscapes,
)

__all__ = ["MiniSpec", "ensure_mini_cityscapes", "make_mini_cityscapes"]
