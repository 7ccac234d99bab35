"""Mask2Former and MaskFormer as detectron2 components. Importing it registers them all."""

from mask2former._provider import provide_detectron2

DETECTRON2_PROVIDER = provide_detectron2()

# After the line above, `import detectron2` works.
from mask2former import data, modeling  # noqa: E402, F401
