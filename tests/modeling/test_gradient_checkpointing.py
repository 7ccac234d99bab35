"""Computing again in backward changes memory, and nothing else."""

import copy

import pytest
import torch
from detectron2.layers import get_norm
from detectron2.modeling import build_model
from tiny_model import example, tiny_config
from torch import nn

from mask2former.layers.checkpointing import recompute_in_backward

SWIN = (
    *("MODEL.BACKBONE.NAME", "D2SwinTransformer"),
    *("MODEL.SWIN.EMBED_DIM", 16),
    *("MODEL.SWIN.DEPTHS", [2, 2, 2, 2]),
    *("MODEL.SWIN.NUM_HEADS", [1, 2, 4, 4]),
    *("MODEL.SWIN.DROP_PATH_RATE", 0.5),
    *("MODEL.SWIN.DROP_RATE", 0.1),
)
MASK_FORMER_V1 = (
    *("MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME", "TransformerEncoderPixelDecoder"),
    *("MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME", "StandardTransformerDecoder"),
    *("MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE", "transformer_encoder"),
)
FEATURE_PYRAMID = (
    *MASK_FORMER_V1,
    *("MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME", "BasePixelDecoder"),
    *("MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE", "res5"),
)
DEEPLAB = (
    *("MODEL.BACKBONE.NAME", "build_resnet_deeplab_backbone"),
    *("MODEL.RESNETS.DEPTH", 50),
    *("MODEL.RESNETS.WIDTH_PER_GROUP", 8),
    *("MODEL.RESNETS.NORM", "BN"),
)
DROPOUT = ("MODEL.MASK_FORMER.DROPOUT", 0.1)
# name -> (config, sections whose USE_CHECKPOINT is set, share of the bytes that may be left)
PARTS = {
    "swin": (SWIN, ["SWIN"], 0.6),
    "resnet": (("MODEL.RESNETS.NORM", "BN"), ["RESNETS"], 0.7),
    "deeplab": (DEEPLAB, ["RESNETS"], 0.7),
    "pixel_decoder": (DROPOUT, ["SEM_SEG_HEAD"], 0.4),
    "transformer_decoder": ((), ["MASK_FORMER"], 0.98),
    "pixel_decoder_v1": ((*MASK_FORMER_V1, *DROPOUT), ["SEM_SEG_HEAD"], 0.99),
    "feature_pyramid": (FEATURE_PYRAMID, ["SEM_SEG_HEAD"], 0.95),
    "transformer_decoder_v1": ((*MASK_FORMER_V1, *DROPOUT), ["MASK_FORMER"], 0.9),
    "all": ((*SWIN, *DROPOUT), ["SWIN", "SEM_SEG_HEAD", "MASK_FORMER"], 0.15),
}


def build(overrides, checkpointed=()):
    torch.manual_seed(0)
    keys = [x for part in checkpointed for x in (f"MODEL.{part}.USE_CHECKPOINT", True)]
    return build_model(tiny_config(*overrides, *keys)).train()


class SavedBytes(torch.autograd.graph.saved_tensors_hooks):
    """Counts what is kept for backward, each storage once, without the model's own tensors."""

    def __init__(self, model):
        self.storages = {}
        own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}

        def pack(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                self.storages[storage.data_ptr()] = (
                    storage  # held, so that no other takes its place
                )
            return tensor

        super().__init__(pack, lambda tensor: tensor)

    def total(self):
        return sum(storage.nbytes() for storage in self.storages.values())


def train_once(model, amp=False):
    """Losses, gradients, state afterwards, and the bytes kept for backward."""
    torch.manual_seed(1)
    saved = SavedBytes(model)
    with saved, torch.autocast("cpu", dtype=torch.bfloat16, enabled=amp):
        losses = model([example(0), example(1)])
    num_bytes = saved.total()
    saved.storages.clear()
    sum(losses.values()).backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    return losses, gradients, model.state_dict(), num_bytes


def assert_equal(found, expected):
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("part", PARTS)
def test_only_memory_changes(part):
    overrides, checkpointed, share = PARTS[part]
    plain = train_once(build(overrides))
    saving = train_once(build(overrides, checkpointed))
    for found, expected in zip(saving[:3], plain[:3]):
        assert_equal(found, expected)
    assert saving[3] < share * plain[3]


@pytest.mark.parametrize("part", ["resnet", "all"])
def test_only_memory_changes_in_half_precision(part):
    overrides, checkpointed, _ = PARTS[part]
    plain = train_once(build(overrides), amp=True)
    saving = train_once(build(overrides, checkpointed), amp=True)
    for found, expected in zip(saving[:3], plain[:3]):
        assert_equal(found, expected)


@pytest.mark.parametrize("kind", ["BN", "naiveSyncBN"])
def test_statistics_are_updated_once(kind):
    block = nn.Sequential(nn.Conv2d(3, 4, 1), get_norm(kind, 4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    block.append(nn.BatchNorm2d(2, momentum=None))  # a plain mean over the batches so far
    plain = copy.deepcopy(block)
    recompute_in_backward([block])
    for seed in range(3):
        images = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
        for module in (block, plain):
            module(images).square().sum().backward()
    assert block[1].num_batches_tracked == 3
    assert_equal(block.state_dict(), plain.state_dict())
    assert_equal(*({k: p.grad for k, p in m.named_parameters()} for m in (block, plain)))


def test_a_copy_computes_with_its_own_weights():
    layer = nn.Linear(3, 3)
    recompute_in_backward([layer])
    twin = copy.deepcopy(layer)
    with torch.no_grad():
        twin.weight.zero_()
        twin.bias.fill_(7)
    twin(torch.ones(2, 3)).sum().backward()
    assert twin.weight.grad is not None and layer.weight.grad is None
    assert (twin(torch.ones(2, 3)) == 7).all()


def test_only_training_computes_again():
    calls = []
    layer = nn.Linear(3, 3)
    forward = layer.forward
    layer.forward = lambda x: calls.append(1) or forward(x).relu().square()
    recompute_in_backward([layer])
    layer(torch.ones(1, 3)).sum().backward()
    assert len(calls) == 2
    layer.eval()(torch.ones(1, 3)).sum().backward()
    assert len(calls) == 3
    with torch.no_grad():
        layer.train()(torch.ones(1, 3))
    assert len(calls) == 4
