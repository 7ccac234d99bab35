"""What a detectron2 that knows nothing of this project needs to run its configs."""

import functools
import sys

import detectron2.modeling
from detectron2.config import CfgNode
from detectron2.layers import CNNBlockBase
from torch import nn

from mask2former.device import resolve_device
from mask2former.layers.checkpointing import recompute_in_backward


def extend_build_model() -> None:
    """Let detectron2's `build_model` understand two keys, in scripts that are not ours as well.

    MODEL.DEVICE "auto", which both detectron2s would hand to torch as it is. The config that is
    passed gets the device's name, because callers such as DefaultPredictor read it again.

    MODEL.RESNETS.USE_CHECKPOINT, of which their ResNets know nothing.
    """
    original = detectron2.modeling.build_model
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def build_model(cfg: CfgNode) -> nn.Module:
        if cfg.MODEL.DEVICE == "auto":
            was_frozen = cfg.is_frozen()
            cfg.defrost()
            cfg.MODEL.DEVICE = str(resolve_device("auto"))
            if was_frozen:
                cfg.freeze()
        model = original(cfg)
        resnets = cfg.MODEL.RESNETS
        if "USE_CHECKPOINT" in resnets and resnets.USE_CHECKPOINT:
            recompute_in_backward(m for m in model.modules() if isinstance(m, CNNBlockBase))
        return model

    # Each module that has imported it holds the name by itself. (Not getattr: the embedded one's
    # packages answer it with an ImportError for what they lack.)
    for name, module in list(sys.modules.items()):
        is_detectron2 = name.partition(".")[0] == "detectron2"
        if is_detectron2 and vars(module).get("build_model") is original:
            module.build_model = build_model
