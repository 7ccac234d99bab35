"""detectron2.modeling: registries, building by config, SemanticSegmentor and post-processing."""

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import (
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    SEM_SEG_HEADS_REGISTRY,
    Backbone,
    SemanticSegmentor,
    build_backbone,
    build_model,
    build_sem_seg_head,
)
from detectron2.modeling.postprocessing import detector_postprocess, sem_seg_postprocess
from detectron2.structures import Boxes, Instances
from torch import nn
from torch.nn import functional as F

import mask2former


class StridedBackbone(Backbone):
    """Average pooling by 4, with demands on the size of its input."""

    def __init__(self, channels: int):
        super().__init__()
        self._out_features = ["map"]
        self._out_feature_channels = {"map": channels}
        self._out_feature_strides = {"map": 4}

    @property
    def size_divisibility(self) -> int:
        return 8

    def forward(self, x):
        assert x.shape[-2] % 8 == 0 and x.shape[-1] % 8 == 0
        return {"map": F.avg_pool2d(x, 4)}


def build_strided(cfg, input_shape):
    return StridedBackbone(input_shape.channels)


class RecordingHead(nn.Module):
    """Upsamples the map to logits; keeps what it was called with."""

    ignore_value = 200

    def __init__(self, cfg, input_shape):
        super().__init__()
        self.input_shape = input_shape
        self.num_classes = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES

    def forward(self, features, targets=None):
        self.features, self.targets = features, targets
        logits = F.interpolate(features["map"], scale_factor=4.0)
        if self.training:
            return None, {"loss": logits.mean()}
        return logits, {}


@pytest.fixture
def registered(monkeypatch):
    """The two parts above are registered, for the time of one test."""
    for registry, name, component in (
        (BACKBONE_REGISTRY, "StridedForTest", build_strided),
        (SEM_SEG_HEADS_REGISTRY, "RecordingForTest", RecordingHead),
    ):
        monkeypatch.setitem(registry._obj_map, name, component)


def segmentor_config():
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "SemanticSegmentor"
    cfg.MODEL.BACKBONE.NAME = "StridedForTest"
    cfg.MODEL.SEM_SEG_HEAD.NAME = "RecordingForTest"
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.PIXEL_MEAN = [10.0, 20.0, 30.0]
    cfg.MODEL.PIXEL_STD = [1.0, 2.0, 4.0]
    return cfg


def test_registries_know_what_is_built_in():
    assert "build_resnet_backbone" in BACKBONE_REGISTRY
    assert "SemanticSegmentor" in META_ARCH_REGISTRY
    for registry, name in (
        (BACKBONE_REGISTRY, "BACKBONE"),
        (META_ARCH_REGISTRY, "META_ARCH"),
        (SEM_SEG_HEADS_REGISTRY, "SEM_SEG_HEADS"),
    ):
        with pytest.raises(KeyError, match=name):
            registry.get("NoSuchThing")


def test_module_paths_of_the_registries():
    from detectron2.modeling.backbone.build import BACKBONE_REGISTRY as backbones
    from detectron2.modeling.meta_arch.build import META_ARCH_REGISTRY as meta_archs
    from detectron2.modeling.meta_arch.semantic_seg import SEM_SEG_HEADS_REGISTRY as heads

    assert backbones is BACKBONE_REGISTRY
    assert meta_archs is META_ARCH_REGISTRY
    assert heads is SEM_SEG_HEADS_REGISTRY


def test_backbone_is_abstract_and_modest():
    with pytest.raises(TypeError, match="forward"):
        Backbone()

    class Plain(Backbone):
        def forward(self):
            return {}

    assert Plain().size_divisibility == 0
    assert Plain().padding_constraints == {}


def test_backbone_must_be_one(monkeypatch):
    monkeypatch.setitem(BACKBONE_REGISTRY._obj_map, "WrongForTest", lambda cfg, shape: nn.ReLU())
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = "WrongForTest"
    with pytest.raises(AssertionError):
        build_backbone(cfg)


def test_build_model_puts_it_on_the_device(monkeypatch):
    monkeypatch.setitem(META_ARCH_REGISTRY._obj_map, "LinearForTest", lambda cfg: nn.Linear(2, 3))
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "LinearForTest"
    cfg.MODEL.DEVICE = "meta"
    assert build_model(cfg).weight.device.type == "meta"


def test_head_gets_the_shapes_of_the_backbone(registered):
    head = build_sem_seg_head(segmentor_config(), {"map": ShapeSpec(channels=7, stride=4)})
    assert head.input_shape["map"].channels == 7
    assert head.num_classes == 54


def test_segmentor_in_training(registered):
    model = build_model(segmentor_config()).train()
    assert type(model) is SemanticSegmentor
    assert list(model.state_dict()) == []  # the pixel statistics are config, not weights
    assert model.sem_seg_head.input_shape == {"map": ShapeSpec(channels=3, stride=4)}
    images = [torch.full((3, 8, 16), 30, dtype=torch.uint8), torch.zeros(3, 13, 9)]
    targets = [torch.ones(8, 16, dtype=torch.int64), torch.zeros(13, 9, dtype=torch.int64)]
    losses = model([{"image": x, "sem_seg": y} for x, y in zip(images, targets)])
    assert list(losses) == ["loss"]

    features, padded = model.sem_seg_head.features["map"], model.sem_seg_head.targets
    assert features.shape == (2, 3, 4, 4)
    # (30 - mean) / std; the padding below the image is 0 after the normalisation
    assert features[0, :, :2].mean((1, 2)).tolist() == pytest.approx([20.0, 5.0, 0.0])
    assert features[0, :, 2:].abs().max() == 0
    assert padded.shape == (2, 16, 16)
    assert padded[0, :8].eq(1).all() and padded[0, 8:].eq(200).all()
    assert padded[1, :13, :9].eq(0).all() and padded[1, :, 9:].eq(200).all()


@torch.no_grad()
def test_segmentor_in_evaluation(registered):
    model = build_model(segmentor_config()).eval()
    images = [torch.randn(3, 8, 16), torch.randn(3, 12, 8)]
    outputs = model([{"image": images[0], "height": 16, "width": 32}, {"image": images[1]}])
    assert [tuple(x["sem_seg"].shape) for x in outputs] == [(3, 16, 32), (3, 12, 8)]
    normal = (images[0] - model.pixel_mean) / model.pixel_std
    logits = F.interpolate(F.avg_pool2d(normal[None], 4), scale_factor=4.0)
    want = F.interpolate(logits, (16, 32), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(outputs[0]["sem_seg"], want)


def test_sem_seg_postprocess_cuts_the_padding_then_resizes():
    torch.manual_seed(0)
    logits = torch.randn(2, 8, 8)
    want = F.interpolate(logits[None, :, :6, :7], (12, 14), mode="bilinear", align_corners=False)
    torch.testing.assert_close(sem_seg_postprocess(logits, (6, 7), 12, 14), want[0])
    assert sem_seg_postprocess(logits, (6, 7), 6, 7).equal(logits[:, :6, :7])


BOXES = [[0.0, 0, 5, 5], [3, 3, 30, 30], [15, 5, 15, 5], [-3, -3, -1, -1]]


def test_detections_are_scaled_clipped_and_empty_ones_dropped():
    instances = Instances((10, 20), pred_boxes=Boxes(torch.tensor(BOXES)), scores=torch.arange(4.0))
    result = detector_postprocess(instances, 20, 60)
    assert result.image_size == (20, 60)
    assert result.pred_boxes.tensor.tolist() == [[0, 0, 15, 10], [9, 6, 60, 20]]
    assert result.scores.tolist() == [0, 1]


def test_proposals_are_scaled_too():
    instances = Instances((10, 20), proposal_boxes=Boxes(torch.tensor(BOXES)))
    result = detector_postprocess(instances, torch.tensor(5), torch.tensor(10))
    assert result.proposal_boxes.tensor.tolist() == [[0, 0, 2.5, 2.5], [1.5, 1.5, 10, 5]]


def test_keypoints_are_scaled():
    instances = Instances(
        (10, 20),
        pred_boxes=Boxes(torch.tensor(BOXES[:1])),
        pred_keypoints=torch.tensor([[[2.0, 3.0, 0.5]]]),
    )
    result = detector_postprocess(instances, 20, 60)
    assert result.pred_keypoints.tolist() == [[[6.0, 6.0, 0.5]]]


def test_detections_need_boxes():
    with pytest.raises(AssertionError, match="boxes"):
        detector_postprocess(Instances((10, 20), scores=torch.zeros(1)), 20, 60)


def test_masks_of_detections():
    """The real detectron2 pastes crops of the boxes; the embedded one resizes whole masks."""
    instances = Instances((10, 20), pred_boxes=Boxes(torch.tensor(BOXES)))
    instances.pred_masks = torch.ones(4, 1, 28, 28)
    if mask2former.DETECTRON2_PROVIDER == "real":
        masks = detector_postprocess(instances, 20, 60).pred_masks
        assert masks.shape == (2, 20, 60) and masks.dtype == torch.bool
        return
    with pytest.raises(ImportError, match="pred_masks"):
        detector_postprocess(instances, 20, 60)
    instances.pred_masks = torch.zeros(4, 10, 20, dtype=torch.bool)
    instances.pred_masks[1, :, 10:] = True
    masks = detector_postprocess(instances, 20, 60).pred_masks
    assert masks.shape == (2, 20, 60) and masks.dtype == torch.bool
    assert not masks[0].any()
    assert masks[1, :, 30:].all() and not masks[1, :, :29].any()


def test_deformable_convolution_is_not_in_the_subset():
    cfg = get_cfg()
    cfg.MODEL.RESNETS.DEFORM_ON_PER_STAGE = [False, False, True, True]
    if mask2former.DETECTRON2_PROVIDER == "real":
        assert build_backbone(cfg).output_shape()["res4"].channels == 1024
        return
    with pytest.raises(ValueError, match="DEFORM_ON_PER_STAGE"):
        build_backbone(cfg)
    with pytest.raises(ImportError, match=r"detectron2\.layers\.DeformConv"):
        from detectron2.layers import DeformConv  # noqa: F401
