"""ResNet and DeepLab's ResNet against numbers of the real detectron2.

The numbers are in tests/goldens/d2_resnet.json. To record them again, with the real one installed:
`M2F_DETECTRON2=real python tests/contract/test_d2_resnet.py`.
"""

import hashlib
import json
import math
import zlib
from pathlib import Path

import mask2former  # noqa: F401  isort: skip
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import build_backbone
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, BottleneckBlock, ResNet
from detectron2.projects.deeplab import add_deeplab_config
from torch import nn

GOLDEN = Path(__file__).parents[1] / "goldens" / "d2_resnet.json"

SLIM = {"RES2_OUT_CHANNELS": 32, "WIDTH_PER_GROUP": 8, "STEM_OUT_CHANNELS": 16}
BASIC = {"RES2_OUT_CHANNELS": 64}
DEEPLAB = SLIM | {"STEM_TYPE": "deeplab"}

# name -> (MODEL.RESNETS keys, training mode); "STEM_TYPE" tells that it is DeepLab's
CASES = {
    "r18": (BASIC | {"DEPTH": 18, "NORM": "BN"}, False),
    "r34_naive_sync_bn": (BASIC | {"DEPTH": 34, "NORM": "naiveSyncBN"}, False),
    "r50": ({"DEPTH": 50, "NORM": "FrozenBN"}, False),
    "r50_gn": ({"DEPTH": 50, "NORM": "GN", "STRIDE_IN_1X1": False}, False),
    "r50_bn_train": (SLIM | {"NORM": "BN", "STRIDE_IN_1X1": False}, True),
    "r50_dilated": (SLIM | {"NORM": "BN", "RES5_DILATION": 2}, False),
    "r50_grouped": (SLIM | {"NORM": "BN", "NUM_GROUPS": 4, "WIDTH_PER_GROUP": 2}, False),
    "r101": (SLIM | {"DEPTH": 101, "NORM": "FrozenBN", "STRIDE_IN_1X1": False}, False),
    "r152": (SLIM | {"DEPTH": 152, "NORM": "FrozenBN"}, False),
    "deeplab_r50": (DEEPLAB | {"NORM": "SyncBN", "STRIDE_IN_1X1": False}, False),
    "deeplab_r50_train": (DEEPLAB | {"NORM": "BN", "RES5_MULTI_GRID": [1, 1, 1]}, True),
    "deeplab_r101_dilated": (
        DEEPLAB | {"DEPTH": 101, "NORM": "FrozenBN", "RES4_DILATION": 2, "RES5_DILATION": 4},
        False,
    ),
    "deeplab_basic_stem": (DEEPLAB | {"NORM": "BN", "STEM_TYPE": "basic"}, False),
}


def config(keys: dict, freeze_at: int = 0):
    cfg = get_cfg()
    cfg.MODEL.RESNETS.OUT_FEATURES = ["stem", "res2", "res3", "res4", "res5"]
    if "STEM_TYPE" in keys:
        cfg.MODEL.RESNETS.OUT_FEATURES.remove("stem")
        add_deeplab_config(cfg)
        cfg.MODEL.BACKBONE.NAME = "build_resnet_deeplab_backbone"
    cfg.MODEL.BACKBONE.FREEZE_AT = freeze_at
    for key, value in keys.items():
        cfg.MODEL.RESNETS[key] = value
    return cfg


def seed_state(model: nn.Module) -> None:
    """Fill every parameter and buffer as a pure function of its name and shape."""
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        if tensor.dim() == 4:
            tensor.normal_(0, math.sqrt(1 / tensor[0].numel()), generator=generator)
        elif name.endswith(("weight", "running_var")):
            # on average a block then adds little, so that even 50 of them keep the scale
            low = 0.25 if name.endswith("weight") else 0.75
            tensor.uniform_(low, low + 0.5, generator=generator)
        else:
            tensor.normal_(0, 0.1, generator=generator)


def summary(name: str) -> dict:
    """What is compared: names and shapes of the state, statistics and samples of each output."""
    keys, training = CASES[name]
    model = build_backbone(config(keys)).train(training)
    seed_state(model)
    state = ";".join(f"{key}{tuple(value.shape)}" for key, value in model.state_dict().items())
    image = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    outputs = model(image)
    sum(x.square().mean() for x in outputs.values()).backward()
    first_weight = next(model.parameters())
    return {
        "num_tensors": len(model.state_dict()),
        "state_sha1": hashlib.sha1(state.encode()).hexdigest(),
        "outputs": {
            key: {
                "shape": list(x.shape),
                "numbers": [x.mean().item(), x.std().item()]
                + x.detach().flatten()[:: math.ceil(x.numel() / 6)].tolist(),
            }
            for key, x in outputs.items()
        },
        "stem_grad_norm": first_weight.grad.norm().item(),
    }


@pytest.mark.parametrize("name", CASES)
def test_golden(name):
    golden = json.loads(GOLDEN.read_text())[name]
    ours = summary(name)
    assert ours["num_tensors"] == golden["num_tensors"]
    assert ours["state_sha1"] == golden["state_sha1"], "names, shapes or order of the state differ"
    assert list(ours["outputs"]) == list(golden["outputs"])
    for key, output in golden["outputs"].items():
        assert ours["outputs"][key]["shape"] == output["shape"]
        std = output["numbers"][1]
        assert ours["outputs"][key]["numbers"] == pytest.approx(
            output["numbers"], rel=1e-4, abs=1e-4 * std
        ), key
    assert ours["stem_grad_norm"] == pytest.approx(golden["stem_grad_norm"], rel=1e-3)


def test_output_shape_tells_channels_and_strides():
    cfg = config(SLIM | {"RES5_DILATION": 2, "OUT_FEATURES": ["res5", "stem"]})
    assert build_backbone(cfg).output_shape() == {
        "res5": ShapeSpec(channels=256, stride=16),
        "stem": ShapeSpec(channels=16, stride=4),
    }


def test_unused_stages_are_not_made():
    backbone = build_backbone(config(SLIM | {"OUT_FEATURES": ["res3"]}))
    assert [name for name, _ in backbone.named_children()] == ["stem", "res2", "res3"]
    assert list(backbone(torch.zeros(1, 3, 32, 32))) == ["res3"]


def test_input_channels_follow_the_pixel_mean():
    cfg = config(SLIM)
    cfg.MODEL.PIXEL_MEAN = [0.0]
    assert build_backbone(cfg).stem.conv1.weight.shape == (16, 1, 7, 7)


@pytest.mark.parametrize(("freeze_at", "frozen"), [(0, 0), (1, 1), (2, 2), (5, 5)])
def test_freeze(freeze_at, frozen):
    backbone = build_backbone(config(SLIM | {"NORM": "BN"}, freeze_at))
    parts = ["stem", "res2", "res3", "res4", "res5"]
    for index, part in enumerate(parts):
        module = getattr(backbone, part)
        kinds = {type(m) for m in module.modules() if hasattr(m, "running_mean")}
        assert kinds == {FrozenBatchNorm2d if index < frozen else nn.BatchNorm2d}
        assert all(p.requires_grad == (index >= frozen) for p in module.parameters())


def test_convolutions_start_as_he_proposed():
    torch.manual_seed(0)
    backbone = build_backbone(config({"DEPTH": 50, "NORM": "BN"}))
    for conv in (backbone.stem.conv1, backbone.res3[0].conv2, backbone.res5[2].conv3):
        fan_out = conv.out_channels * conv.kernel_size[0] * conv.kernel_size[1]
        assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.03)
        assert conv.bias is None
        assert (conv.norm.weight == 1).all() and (conv.norm.bias == 0).all()


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (BASIC | {"DEPTH": 18, "RES5_DILATION": 2}, "RES5_DILATION"),
        (BASIC | {"DEPTH": 34, "NUM_GROUPS": 2}, "NUM_GROUPS"),
        ({"DEPTH": 18, "RES2_OUT_CHANNELS": 256}, "RES2_OUT_CHANNELS"),
        ({"RES5_DILATION": 4}, "(?i)RES5_DILATION"),
        ({"DEPTH": 77}, "77"),
        ({"OUT_FEATURES": ["res2", "res9"]}, "stem"),
        ({"STEM_TYPE": "plain"}, "plain"),
        ({"STEM_TYPE": "basic", "DEPTH": 18}, "18"),
        ({"STEM_TYPE": "basic", "RES4_DILATION": 3}, "(?i)RES4_DILATION"),
        ({"STEM_TYPE": "basic", "RES4_DILATION": 2, "RES5_DILATION": 2}, None),
        ({"STEM_TYPE": "basic", "RES5_MULTI_GRID": [1, 2]}, "3|three"),
    ],
)
def test_impossible_keys_are_refused(keys, words):
    with pytest.raises((AssertionError, KeyError, ValueError), match=words):
        build_backbone(config(keys))


def slim_stages():
    return [
        ResNet.make_stage(BasicBlock, 1, in_channels=8, out_channels=8, stride_per_block=[1]),
        ResNet.make_stage(BasicBlock, 2, in_channels=8, out_channels=16, stride_per_block=[2, 1]),
    ]


def test_classifier():
    model = ResNet(BasicStem(3, 8), slim_stages(), num_classes=5).eval()
    outputs = model(torch.randn(2, 3, 32, 32))
    assert list(outputs) == ["linear"] and outputs["linear"].shape == (2, 5)
    assert {"linear.weight", "linear.bias"} <= set(model.state_dict())

    features = ResNet(model.stem, [list(model.res2), list(model.res3)]).eval()
    x = torch.randn(2, 3, 32, 32)
    pooled = features(x)["res3"].mean((2, 3))
    torch.testing.assert_close(model(x)["linear"], model.linear(pooled))


def test_image_without_batch_is_refused():
    with pytest.raises(AssertionError, match="3, 32, 32"):
        ResNet(BasicStem(3, 8), slim_stages())(torch.zeros(3, 32, 32))


def test_make_stage_spreads_lists_over_blocks():
    blocks = ResNet.make_stage(
        BottleneckBlock,
        3,
        in_channels=8,
        out_channels=16,
        bottleneck_channels=4,
        stride_per_block=[2, 1, 1],
        dilation_per_block=[1, 2, 4],
    )
    assert [block.conv2.dilation for block in blocks] == [(1, 1), (2, 2), (4, 4)]
    assert [block.stride for block in blocks] == [2, 1, 1]
    assert [block.in_channels for block in blocks] == [8, 16, 16]
    assert blocks[0].shortcut is not None and blocks[1].shortcut is None
    for strides in ({"stride_per_block": [2, 1]}, {"stride": 1, "stride_per_block": [2, 1, 1]}):
        with pytest.raises(AssertionError, match="stride"):
            ResNet.make_stage(BasicBlock, 3, in_channels=8, out_channels=8, **strides)


def test_default_stages():
    for depth, sizes, channels in ((18, [2, 2, 2, 2], 512), (101, [3, 4, 23, 3], 2048)):
        with torch.device("meta"):
            stages = ResNet.make_default_stages(depth)
        assert [len(stage) for stage in stages] == sizes
        assert [stage[0].stride for stage in stages] == [1, 2, 2, 2]
        assert stages[-1][-1].out_channels == channels


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({name: summary(name) for name in CASES}, indent=1) + "\n")
