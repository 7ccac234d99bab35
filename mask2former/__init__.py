"""Mask2Former and MaskFormer as detectron2 components. Importing it registers them all."""

from mask2former._provider import provide_detectron2

DETECTRON2_PROVIDER = provide_detectron2()

# After the line above, `import detectron2` works.
from mask2former.config import add_maskformer2_config, get_config_file  # noqa: E402
from mask2former.data import (  # noqa: E402
    COCOInstanceNewBaselineDatasetMapper,
    COCOPanopticNewBaselineDatasetMapper,
    DETRPanopticDatasetMapper,
    MaskFormerInstanceDatasetMapper,
    MaskFormerPanopticDatasetMapper,
    MaskFormerSemanticDatasetMapper,
)
from mask2former.evaluation import InstanceSegEvaluator  # noqa: E402
from mask2former.modeling.maskformer_model import MaskFormer  # noqa: E402
from mask2former.modeling.test_time_augmentation import SemanticSegmentorWithTTA  # noqa: E402
from mask2former.patch import extend_build_model, know_all_devices  # noqa: E402

extend_build_model()
know_all_devices()

__all__ = [
    "DETECTRON2_PROVIDER",
    "COCOInstanceNewBaselineDatasetMapper",
    "COCOPanopticNewBaselineDatasetMapper",
    "DETRPanopticDatasetMapper",
    "InstanceSegEvaluator",
    "MaskFormer",
    "MaskFormerInstanceDatasetMapper",
    "MaskFormerPanopticDatasetMapper",
    "MaskFormerSemanticDatasetMapper",
    "SemanticSegmentorWithTTA",
    "add_maskformer2_config",
    "get_config_file",
]
