"""ResNet (He et al. 2016) in detectron2's layout: stem, res2 ... res5.

Legend: B batch, C channels, H W height and width.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from detectron2.config import CfgNode
from detectron2.layers import CNNBlockBase, ShapeSpec

from .backbone import Backbone
from .build import BACKBONE_REGISTRY
from .resnet_blocks import BasicBlock, BasicStem, BottleneckBlock

__all__ = [
    "BasicBlock",
    "BasicStem",
    "BottleneckBlock",
    "ResNet",
    "ResNetBlockBase",
    "build_resnet_backbone",
    "build_stages",
    "make_stage",
]

ResNetBlockBase = CNNBlockBase  # an older name

# depth -> number of blocks in res2 ... res5 (He et al. 2016, table 1)
_NUM_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


class ResNet(Backbone):
    """A stem, then stages of blocks named res2, res3, ...; optionally a classifier "linear".

    Stages behind the last one that `out_features` asks for are not made.

    Args:
        stem: the first layers.
        stages: the blocks of each stage, see `make_stage`.
        num_classes: if given, "linear" returns class logits (B,num_classes) of the last stage.
        out_features: names of what `forward` returns; the last one there is by default.
        freeze_at: see `freeze`.

    Raises:
        ValueError: there is no output of a name in `out_features`.
    """

    def __init__(
        self,
        stem: CNNBlockBase,
        stages: Sequence[Sequence[CNNBlockBase]],
        num_classes: int | None = None,
        out_features: Sequence[str] | None = None,
        freeze_at: int = 0,
    ):
        super().__init__()
        self.stem = stem
        self.num_classes = num_classes
        names = [f"res{index}" for index in range(2, 2 + len(stages))]
        available = ["stem", *names] + ["linear"] * (num_classes is not None)
        self._out_features = available[-1:] if out_features is None else list(out_features)
        unknown = [name for name in self._out_features if name not in available]
        if unknown or not self._out_features:
            raise ValueError(
                f"ResNet has no output {', '.join(unknown) or 'to return'}; "
                f"set its out features to some of {', '.join(available)}"
            )
        if "linear" not in self._out_features:
            used = [names.index(name) + 1 for name in self._out_features if name in names]
            names = names[: max(used, default=0)]
        self.stage_names = tuple(names)
        self._out_feature_channels = {"stem": stem.out_channels}
        self._out_feature_strides = {"stem": stem.stride}
        channels, stride = stem.out_channels, stem.stride
        for name, blocks in zip(self.stage_names, stages):
            assert all(isinstance(block, CNNBlockBase) for block in blocks), blocks
            self.add_module(name, nn.Sequential(*blocks))
            channels = blocks[-1].out_channels
            for block in blocks:
                stride *= block.stride
            self._out_feature_channels[name] = channels
            self._out_feature_strides[name] = stride
        if num_classes is not None:
            self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
            self.linear = nn.Linear(channels, num_classes)
            nn.init.normal_(self.linear.weight, std=0.01)  # Goyal et al. 2017, sec. 5.1
        self.freeze(freeze_at)

    def forward(self, x: Tensor) -> dict[str, Tensor]:  # (B,3,H,W) -> {name: (B,C,H/s,W/s)}
        assert x.dim() == 4, f"ResNet takes (B,C,H,W), not {tuple(x.shape)}"
        outputs = {"stem": self.stem(x)}
        x = outputs["stem"]
        for name in self.stage_names:
            x = outputs[name] = getattr(self, name)(x)
        if self.num_classes is not None:
            outputs["linear"] = self.linear(torch.flatten(self.avgpool(x), 1))
        return {name: outputs[name] for name in outputs if name in self._out_features}

    def freeze(self, freeze_at: int = 0) -> "ResNet":
        """Freeze the first parts: 1 the stem, 2 also res2, and so on. Returns itself."""
        parts = [[self.stem], *(getattr(self, name) for name in self.stage_names)]
        for blocks in parts[: max(freeze_at, 0)]:
            for block in blocks:
                block.freeze()
        return self

    @staticmethod
    def make_stage(
        block_class: type[CNNBlockBase],
        num_blocks: int,
        *,
        in_channels: int,
        out_channels: int,
        **kwargs,
    ) -> list[CNNBlockBase]:
        """The blocks of a stage.

        Args:
            block_class: called once a block.
            num_blocks: how many.
            in_channels: of the first block.
            out_channels: of every block.
            **kwargs: passed to every block; `xxx_per_block` is a list with the `xxx` of each.
        """
        suffix = "_per_block"
        listed = {key: values for key, values in kwargs.items() if key.endswith(suffix)}
        for key, values in listed.items():
            name = key.removesuffix(suffix)
            assert len(values) == num_blocks, f"{key} has {len(values)} of {num_blocks} values"
            assert name not in kwargs, f"make_stage got both {name} and {key}"
        blocks = []
        for index in range(num_blocks):
            arguments = {key: value for key, value in kwargs.items() if key not in listed}
            for key, values in listed.items():
                arguments[key.removesuffix(suffix)] = values[index]
            blocks.append(block_class(in_channels, out_channels, **arguments))
            in_channels = out_channels
        return blocks

    @staticmethod
    def make_default_stages(
        depth: int, block_class: type[CNNBlockBase] | None = None, **kwargs
    ) -> list[list[CNNBlockBase]]:
        """res2 ... res5 of the usual ResNet 18, 34, 50, 101 or 152.

        Args:
            depth: which one.
            block_class: instead of the usual block; it must take the same arguments.
            **kwargs: for `make_stage`, without strides and channels.
        """
        basic = depth < 50
        widths = (64, 128, 256, 512)
        expansion = 1 if basic else 4
        in_channels = [64] + [width * expansion for width in widths[:-1]]
        stages = []
        for index, (num_blocks, width) in enumerate(zip(_NUM_BLOCKS[depth], widths)):
            stages.append(
                ResNet.make_stage(
                    block_class or (BasicBlock if basic else BottleneckBlock),
                    num_blocks,
                    in_channels=in_channels[index],
                    out_channels=width * expansion,
                    stride_per_block=[1 if index == 0 else 2] + [1] * (num_blocks - 1),
                    **({} if basic else {"bottleneck_channels": width}),
                    **kwargs,
                )
            )
        return stages


make_stage = ResNet.make_stage


def build_stages(
    cfg: CfgNode, dilations: Mapping[int, int], multi_grid: Sequence[int] = (1, 1, 1)
) -> list[list[CNNBlockBase]]:
    """res2 ... res5 as MODEL.RESNETS describes them.

    Args:
        cfg: the whole config.
        dilations: index of a stage -> dilation of its 3x3 convolutions. A dilated stage keeps the
            resolution instead of halving it.
        multi_grid: what multiplies the dilation of each block of res5 (Chen et al. 2017, sec. 3.2).

    Raises:
        ValueError: the keys ask for what this network cannot have.
    """
    node = cfg.MODEL.RESNETS
    if node.DEPTH not in _NUM_BLOCKS:
        depths = ", ".join(map(str, _NUM_BLOCKS))
        raise ValueError(f"MODEL.RESNETS.DEPTH={node.DEPTH}; set it to one of {depths}")
    if any(node.DEFORM_ON_PER_STAGE):
        raise ValueError(
            f"MODEL.RESNETS.DEFORM_ON_PER_STAGE={node.DEFORM_ON_PER_STAGE}, but the embedded "
            "subset has no deformable convolution; set all to False or install detectron2"
        )
    basic = node.DEPTH < 50
    if basic:
        _check_basic(node, dilations)
    width, out_channels = node.NUM_GROUPS * node.WIDTH_PER_GROUP, node.RES2_OUT_CHANNELS
    in_channels = node.STEM_OUT_CHANNELS
    stages = []
    for stage, num_blocks in enumerate(_NUM_BLOCKS[node.DEPTH], start=2):
        dilation = dilations.get(stage, 1)
        first_stride = 1 if stage == 2 or dilation > 1 else 2
        bottleneck = {
            "bottleneck_channels": width,
            "stride_in_1x1": node.STRIDE_IN_1X1,
            "num_groups": node.NUM_GROUPS,
            "dilation_per_block": [
                dilation * grid for grid in (multi_grid if stage == 5 else [1] * num_blocks)
            ],
        }
        stages.append(
            ResNet.make_stage(
                BasicBlock if basic else BottleneckBlock,
                num_blocks,
                in_channels=in_channels,
                out_channels=out_channels,
                norm=node.NORM,
                stride_per_block=[first_stride] + [1] * (num_blocks - 1),
                **({} if basic else bottleneck),
            )
        )
        in_channels, out_channels, width = out_channels, out_channels * 2, width * 2
    return stages


def _check_basic(node: CfgNode, dilations: Mapping[int, int]) -> None:
    """The blocks of ResNet 18 and 34 have one width, one group and no dilation."""
    needed = {"RES2_OUT_CHANNELS": 64, "NUM_GROUPS": 1}
    wrong = [f"{key}={node[key]} (set it to {n})" for key, n in needed.items() if node[key] != n]
    wrong += [f"RES{k}_DILATION={d} (set it to 1)" for k, d in dilations.items() if d != 1]
    if wrong:
        raise ValueError(f"ResNet-{node.DEPTH} cannot have MODEL.RESNETS.{', '.join(wrong)}")


@BACKBONE_REGISTRY.register()
def build_resnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """The ResNet of MODEL.RESNETS, frozen up to MODEL.BACKBONE.FREEZE_AT.

    Raises:
        ValueError: the keys ask for what this network cannot have.
    """
    node = cfg.MODEL.RESNETS
    if node.RES5_DILATION not in (1, 2):
        raise ValueError(f"MODEL.RESNETS.RES5_DILATION={node.RES5_DILATION}; set it to 1 or 2")
    return ResNet(
        BasicStem(input_shape.channels, node.STEM_OUT_CHANNELS, node.NORM),
        build_stages(cfg, {5: node.RES5_DILATION}),
        out_features=node.OUT_FEATURES,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
    )
