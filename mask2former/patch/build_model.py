"""Four keys of our configs, for every script that builds its model by detectron2's function."""

import functools

import detectron2.modeling
import torch
from detectron2.config import CfgNode
from detectron2.layers import CNNBlockBase
from torch import nn

from mask2former.device import resolve_device, supports_sync_batch_norm
from mask2former.layers.checkpointing import recompute_in_backward
from mask2former.layers.compiling import check_compiler, compile_parts
from mask2former.layers.sync_batch_norm import convert_sync_batch_norm
from mask2former.patch.replace import replace_everywhere


def extend_build_model() -> None:
    """Let detectron2's `build_model` understand what it would not, in scripts that are not ours.

    MODEL.DEVICE "auto", which both detectron2s would hand to torch as it is. The config that is
    passed gets the device's name, because callers such as DefaultPredictor read it again.

    The norm "SyncBN" on a device for which torch's has no kernels.

    MODEL.RESNETS.USE_CHECKPOINT, of which their ResNets know nothing.

    MODEL.COMPILE, for which the device must be known.
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
        if not supports_sync_batch_norm(torch.device(cfg.MODEL.DEVICE).type):
            model = convert_sync_batch_norm(model)
        resnets = cfg.MODEL.RESNETS
        if "USE_CHECKPOINT" in resnets and resnets.USE_CHECKPOINT:
            recompute_in_backward(m for m in model.modules() if isinstance(m, CNNBlockBase))
        if "COMPILE" in cfg.MODEL and cfg.MODEL.COMPILE:
            check_compiler(torch.device(cfg.MODEL.DEVICE))
            compile_parts((model.backbone, model.sem_seg_head))
        return model

    replace_everywhere(original, build_model)
