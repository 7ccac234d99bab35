"""Our models, ready to be run on a batch of pictures."""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.pictures import Picture
from mask2former import device as devices
from mask2former.config import load_config

# isort: split
from detectron2.config import CfgNode
from detectron2.structures import Instances
from detectron2.utils.events import EventStorage

from mask2former.engine import Trainer
from mask2former.engine.checkpoint import Checkpointer
from mask2former.engine.train_step import TrainStep


class Ours(NamedTuple):
    """What to build."""

    config_file: str
    opts: tuple[str, ...]

    def config(self, device: str) -> CfgNode:
        """
        Raises:
            ValueError: it is of another architecture, whose targets and parts are others.
        """
        cfg = load_config(self.config_file, [*self.opts, "MODEL.DEVICE", device])
        if cfg.MODEL.META_ARCHITECTURE != "MaskFormer":
            raise ValueError(
                f"MODEL.META_ARCHITECTURE={cfg.MODEL.META_ARCHITECTURE} in {self.config_file}, but "
                "only MaskFormer is measured; name a config with that one"
            )
        return cfg


def build_model(cfg: CfgNode, weights: dict[str, Tensor] | None = None) -> nn.Module:
    """With these weights, else those of MODEL.WEIGHTS, else random ones."""
    torch.manual_seed(0)
    model = Trainer.build_model(cfg)
    if weights is not None:
        model.load_state_dict(weights)
    elif cfg.MODEL.WEIGHTS:
        Checkpointer(model).load(cfg.MODEL.WEIGHTS)
    return model


def check_not_compiled(cfg: CfgNode) -> None:
    """
    Raises:
        ValueError: the model is compiled, so that its parts are one.
    """
    if cfg.MODEL.COMPILE:
        raise ValueError("MODEL.COMPILE=True: a compiled model has no parts; set it to False")


def as_batch(pictures: list[Picture]) -> list[dict]:
    """What a dataset mapper would give."""
    batch = []
    for image, classes, masks in pictures:
        instances = Instances(tuple(image.shape[-2:]))
        instances.gt_classes, instances.gt_masks = classes, masks
        height, width = image.shape[-2:]
        batch.append({"image": image, "height": height, "width": width, "instances": instances})
    return batch


def without_gradients(function: Callable) -> Callable:
    """As evaluations run it; not every plugin has views in inference_mode."""
    return torch.no_grad()(function)


def inference(
    device: str, ours: Ours, pictures: list[Picture], weights: dict | None = None
) -> Callable[[], list[dict]]:
    """What runs the model once."""
    model = build_model(ours.config(device), weights).eval()
    batch = as_batch(pictures)
    return without_gradients(lambda: model(batch))


def training_step(
    device: str, ours: Ours, pictures: list[Picture], weights: dict | None = None
) -> Callable[[], None]:
    """What runs an iteration as `train_net.py` does, all but the reading of data."""
    cfg = ours.config(device)
    model = build_model(cfg, weights).train()
    optimizer = Trainer.build_optimizer(cfg, model)
    amp = cfg.SOLVER.AMP
    amp_dtype = devices.amp_dtype(torch.device(device).type, amp.DTYPE) if amp.ENABLED else None
    step = TrainStep(model, optimizer, seed=0, amp_dtype=amp_dtype)
    step.read_from(itertools.repeat(as_batch(pictures)))
    step.iter = 0

    def run() -> None:
        with EventStorage():
            step.run_step()

    return run
