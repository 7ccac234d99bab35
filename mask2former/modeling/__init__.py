"""The model. Importing this package registers its parts with detectron2."""

from mask2former.modeling import maskformer_model  # noqa: F401
from mask2former.modeling.backbone import swin  # noqa: F401
from mask2former.modeling.head import mask_former_head, per_pixel_baseline  # noqa: F401
from mask2former.modeling.pixel_decoder import fpn, msdeformattn  # noqa: F401
from mask2former.modeling.transformer_decoder import mask2former, maskformer  # noqa: F401
