"""In a training step the host waits for the device once: for the costs of matching.

tests/devices holds the transfers themselves to that, on the simulated device. Here are the
operators that would wait or copy there, though on a CPU they do not.
"""

import pytest
import torch
from detectron2.modeling import build_model
from tiny_model import as_labels, as_runs, example, tiny_config
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from mask2former.modeling.maskformer_model import prepare_target

WAITING = {  # for a value, or for the size of the result
    "_local_scalar_dense",
    "equal",
    "masked_select",
    "nonzero",
    "repeat_interleave",
    "unique_dim",
    "_unique2",
}
FROM_THE_HOST = {"lift_fresh"}  # torch.tensor, from_numpy
TO_THE_HOST = {"cpu", "numpy", "tolist", "item", "__bool__", "__int__", "__float__", "__index__"}


class Operators(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in WAITING | FROM_THE_HOST:
            self.found.append(name)
        elif name in ("index", "index_put", "index_put_"):
            masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
            self.found += ["index by a mask" for _ in masks]
        return func(*args, **(kwargs or {}))


class Methods(TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.found += [func.__name__] if func.__name__ in TO_THE_HOST else []
        return func(*args, **(kwargs or {}))


def waits(run):
    with Operators() as operators, Methods() as methods:
        run()
    return methods.found, operators.found


MASKFORMER = [
    *("MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME", "TransformerEncoderPixelDecoder"),
    *("MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME", "StandardTransformerDecoder"),
    *("MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE", "transformer_encoder"),
    *("MODEL.MASK_FORMER.MASK_LOSS", "whole_masks"),
]


@pytest.mark.parametrize(
    "overrides",
    [[], ["MODEL.SEM_SEG_HEAD.MS_DEFORM_ATTN", "Gather"], MASKFORMER],
    ids=["Reference", "Gather", "MaskFormer"],
)
def test_a_training_step_waits_once(overrides, monkeypatch):
    model = build_model(tiny_config(*overrides)).train()
    batch = [example(0), example(1, num_targets=1)]
    images = model.preprocess(batch)  # comes from the host anyway
    monkeypatch.setattr(model, "preprocess", lambda batched_inputs: images)
    losses = {}
    to_host, others = waits(lambda: losses.update(model(batch)))
    assert to_host == ["cpu", "numpy"]  # the costs
    assert others == ["lift_fresh"]  # the matches, when the device has nothing left to do
    assert waits(sum(losses.values()).backward) == ([], [])


@pytest.mark.parametrize("make_masks", [as_labels, as_runs])
def test_masks_are_drawn_without_waiting(make_masks):
    sample = example(0)
    sample["instances"].gt_masks = make_masks(sample["instances"].gt_masks, (64, 96))
    targets = {}
    found = waits(lambda: targets.update(prepare_target(sample, (64, 128), torch.device("cpu"))))
    assert found == ([], []) and targets["masks"].shape == (3, 64, 128)


def test_waiting_is_noticed():
    x = torch.arange(3.0)
    assert waits(lambda: x[x > 1]) == ([], ["index by a mask"])
    assert waits(lambda: bool(x.sum() > 1)) == (["__bool__"], ["_local_scalar_dense"])
    assert waits(lambda: x.new_tensor([1.0, 2.0])) == ([], ["lift_fresh"])
    assert waits(x.nonzero) == ([], ["nonzero"])
