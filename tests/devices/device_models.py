"""What models compute on a device: imported for the CPU, run as a script on the simulated one.

    python device_models.py FILE PART ...

writes the results of these PARTS into FILE, for torch.load.
"""

import sys
from contextlib import contextmanager
from unittest.mock import patch

import mask2former  # noqa: F401  isort: skip
import torch
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model
from detectron2.structures import Instances
from seeding import seed_model, seeded_image, seeded_masks
from tiny_model import example, tiny_config
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mask2former import device as devices
from mask2former.config import load_config
from mask2former.engine import Trainer
from mask2former.modeling import maskformer_model
from mask2former.modeling.test_time_augmentation import SemanticSegmentorWithTTA

MODELS = {
    "mask2former": ("cityscapes/semantic-segmentation/maskformer2_R50_bs16_90k.yaml", 19),
    "maskformer": ("maskformer/ade20k-150/maskformer_R50_bs16_160k.yaml", 150),
}
# Dropout would draw from the device's own generator.
SMALL = ("MODEL.WEIGHTS", "", "MODEL.MASK_FORMER.DROPOUT", "0.0")
SMALL = (*SMALL, "MODEL.MASK_FORMER.TRAIN_NUM_POINTS", "256")
# The device's own choice, on the CPU too: another op rounds differently, and ReLUs tip over.
SMALL = (*SMALL, "MODEL.SEM_SEG_HEAD.MS_DEFORM_ATTN", "Gather")
SIDE = 64  # of an image
NUM_KEPT = 1000  # values of each gradient
MOVES = {"index_select", "select", "stack", "unsqueeze", "view"}  # operators that compute nothing


def batch_of(num_classes):
    batch = []
    for seed in range(2):
        instances = Instances((SIDE, SIDE))
        masks = seeded_masks(SIDE, SIDE, 4, num_classes, seed)
        instances.gt_classes, instances.gt_masks = masks
        batch.append({"image": seeded_image(SIDE, SIDE, seed), "instances": instances})
        batch[-1] |= {"seed": seed, "height": 2 * SIDE, "width": 2 * SIDE}
    return batch


# The layout of the device, on the CPU too: convolutions round differently with channels last.
as_laid_out_on_the_device = patch.object(
    maskformer_model, "image_layout", lambda device_type: torch.contiguous_format
)


@as_laid_out_on_the_device
def numbers(name, device):
    """Results, losses and gradients of an official R50 model, its weights drawn by their names."""
    config, num_classes = MODELS[name]
    model = seed_model(Trainer.build_model(load_config(config, [*SMALL, "MODEL.DEVICE", device])))
    batch = batch_of(num_classes)
    with torch.no_grad():
        results = [result["sem_seg"] for result in model.eval()(batch)]
    losses = model.train()(batch)
    sum(losses.values()).backward()
    gradients = {}
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            gradient = parameter.grad.flatten()
            kept = gradient[:: max(1, len(gradient) // NUM_KEPT)]
            gradients[key] = torch.cat((gradient.norm()[None], kept))
    state = {k: v for k, v in model.state_dict().items() if "running" in k}
    return on_cpu({"results": results, "losses": losses, "gradients": gradients, "state": state})


def on_cpu(value):
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {key: on_cpu(item) for key, item in value.items()}
    return [on_cpu(item) for item in value]


class Operators(TorchDispatchMode):
    """Notes the names of operators: of which ones, `wants(operator, result)` says."""

    def __init__(self, wants):
        super().__init__()
        self.wants = wants
        self.names = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        result = operator(*args, **(kwargs or {}))
        if self.wants(args, result):
            self.names.append(operator._overloadpacket.__name__)
        return result


def is_half(args, result):
    tensors = (x for x in tree_leaves(result) if isinstance(x, torch.Tensor))
    return any(x.dtype in (torch.float16, torch.bfloat16) for x in tensors)


def leaves_the_device(args, result):
    """From a device into the CPU's memory, or into python."""

    def is_on_device(value):
        return isinstance(value, torch.Tensor) and value.device.type != "cpu"

    has_result = result is not None  # assertions have none
    return (
        has_result
        and any(map(is_on_device, tree_leaves(args)))
        and not any(map(is_on_device, tree_leaves(result)))
    )


@contextmanager
def noting(wants, **modules):
    """A dict of the operators' names in each of `modules`, while they run."""
    noted = {name: [] for name in modules}
    hooks = []

    def watch(name, module):
        modes = []

        def begin(*_):
            modes.append(Operators(wants))
            modes[-1].__enter__()

        def end(*_):
            mode = modes.pop()
            mode.__exit__(None, None, None)
            noted[name] += mode.names

        hooks.append(module.register_forward_pre_hook(begin))
        hooks.append(module.register_forward_hook(end))

    for name, module in modules.items():
        watch(name, module)
    yield noted
    for hook in hooks:
        hook.remove()


def tiny_model(device, *overrides):
    torch.manual_seed(0)
    return build_model(tiny_config("MODEL.DEVICE", device, *overrides)).train()


def mixed(device):
    return devices.autocast(device, devices.amp_dtype(device))


def precision(device):
    """Operators with half-precision results, of the parts of a model in mixed precision."""
    model = tiny_model(device)
    head = model.sem_seg_head
    parts = {
        "backbone": model.backbone,
        "pixel_decoder": head.pixel_decoder,
        "transformer_decoder": head.predictor,
        "criterion": model.criterion,
    }
    with noting(is_half, **parts) as noted, mixed(device):
        sum(model([example(0), example(1)]).values()).backward()
        prediction = model.eval().predict([example(0)])[0]
        with Operators(is_half) as inference:
            model.infer(prediction, (64, 96))
    dtypes = {str(p.grad.dtype) for p in model.parameters() if p.grad is not None}
    return {**noted, "inference": inference.names, "gradients": sorted(dtypes)}


def check_precision(halves):
    """That mixed precision is on, and that the sensitive parts are in float32 nevertheless."""
    halves = {part: set(names) for part, names in halves.items()}
    assert "convolution" in halves["backbone"]
    assert "addmm" in halves["transformer_decoder"]
    assert not halves["pixel_decoder"]
    assert halves["criterion"] <= MOVES and halves["inference"] <= MOVES
    assert halves["gradients"] == {"torch.float32"}


def tasks(device):
    """Results of every kind: of an image, and of two views of another."""
    MetadataCatalog.get("device_models").set(thing_dataset_id_to_contiguous_id={7: 0, 8: 1})
    keys = [f"MODEL.MASK_FORMER.TEST.{task}_ON" for task in ("SEMANTIC", "PANOPTIC", "INSTANCE")]
    # Whatever is found is drawn: the weights are random.
    loose = ("MODEL.MASK_FORMER.TEST.OBJECT_MASK_THRESHOLD", 0.0)
    loose += ("MODEL.MASK_FORMER.TEST.OVERLAP_THRESHOLD", 0.0)
    views = ("TEST.AUG.MIN_SIZES", (64,), "TEST.AUG.FLIP", True)
    switches = (x for key in keys for x in (key, True))
    data = ("DATASETS.TRAIN", ("device_models",))
    cfg = tiny_config("MODEL.DEVICE", device, *data, *switches, *loose, *views)
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    found = []
    with torch.no_grad():
        for result in (*model([example(0)]), *SemanticSegmentorWithTTA(cfg, model)([example(1)])):
            instances = result["instances"]
            fields = {k: v for k, v in instances.get_fields().items() if k != "pred_boxes"}
            ids, segments = result["panoptic_seg"]
            tensors = {"sem_seg": result["sem_seg"], "ids": ids, **fields}
            assert {x.device.type for x in tensors.values()} == {device}
            found.append((on_cpu(tensors), segments))
    return found


def out_of_memory(device):
    """Results of inference as usual, when memory is full once, and when it stays so: with where."""
    model = tiny_model(device).eval()
    results = []
    for num_failures in range(3):
        with torch.no_grad():
            (prediction,) = model.predict([example(0)])
            torch.sdaa._fail_next(1, num_failures)
            result = model.infer(prediction, (64, 96))["sem_seg"]
        results.append((result.device.type, result.cpu()))
    return results


def transfers(device):
    """Operators that take something from the device to the host, in a training's forward pass."""
    model = tiny_model(device)
    parts = {"network": model.sem_seg_head, "criterion": model.criterion}
    with noting(leaves_the_device, **parts) as noted:
        model([example(0), example(1)])
    return noted


def checkpointing(device):
    """Losses in mixed precision as usual and computed again in backward, and unequal gradients."""

    def train(value):
        keys = [
            f"MODEL.{part}.USE_CHECKPOINT" for part in ("RESNETS", "SEM_SEG_HEAD", "MASK_FORMER")
        ]
        model = tiny_model(device, *(x for key in keys for x in (key, value)))
        with mixed(device):
            losses = model([example(0), example(1)])
        sum(losses.values()).backward()
        return on_cpu(losses), {k: p.grad for k, p in model.named_parameters()}

    (losses, gradients), (again, gradients_again) = train(False), train(True)
    unequal = [
        name
        for name, gradient in gradients.items()
        if gradient is not None and not torch.equal(gradient, gradients_again[name])
    ]
    return {"losses": losses, "again": again, "unequal": unequal}


PARTS = {
    **{name: lambda device, name=name: numbers(name, device) for name in MODELS},
    "precision": precision,
    "tasks": tasks,
    "out_of_memory": out_of_memory,
    "transfers": transfers,
    "checkpointing": checkpointing,
}


def main(file, *parts):
    device = devices.best_device_type()
    torch.save({part: PARTS[part](device) for part in parts}, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
