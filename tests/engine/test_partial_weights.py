"""Training starts from a checkpoint with other classes or queries, and says what it took of it."""

import logging

import pytest
import torch
from detectron2.modeling import build_model
from tiny_model import tiny_config

from mask2former.engine.checkpoint import Checkpointer

HEAD = "sem_seg_head.predictor."


def build(seed, num_classes, num_queries, *overrides):
    torch.manual_seed(seed)
    return build_model(
        tiny_config(
            *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", num_classes),
            *("MODEL.MASK_FORMER.NUM_OBJECT_QUERIES", num_queries),
            *overrides,
        )
    )


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """A checkpoint of 133 classes and 10 queries: its path and its weights."""
    folder = tmp_path_factory.mktemp("coco")
    model = build(0, 133, 10)
    Checkpointer(model, str(folder)).save("model_final", iteration=7)
    return str(folder / "model_final.pth"), model.state_dict()


@pytest.fixture
def sentences(caplog):
    """What the checkpointer warns of, without the file's name."""
    caplog.set_level(logging.WARNING, "fvcore")
    logging.getLogger("fvcore").propagate = True
    return lambda: [r.args[1] for r in caplog.records if r.name.startswith("fvcore")]


def test_what_fits_in_full_says_nothing(coco, sentences):
    path, weights = coco
    model = build(1, 133, 10)
    Checkpointer(model).resume_or_load(path, resume=False)
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())
    assert sentences() == []


def test_two_classes_from_cocos(coco, sentences):
    path, weights = coco
    model = build(1, 2, 10)
    own = {k: v.clone() for k, v in model.state_dict().items()}
    Checkpointer(model).resume_or_load(path, resume=False)
    for key, value in model.state_dict().items():
        starts_anew = key.startswith((f"{HEAD}class_embed", "criterion"))
        assert torch.equal(value, (own if starts_anew else weights)[key]), key
    assert sentences() == [
        f"{HEAD}class_embed: 133 classes in the file, 2 in the model: starts anew"
    ]


def test_more_queries(coco, sentences):
    path, weights = coco
    model = build(1, 133, 16)
    own = {k: v.clone() for k, v in model.state_dict().items()}
    Checkpointer(model).load(path)
    for name in ("query_feat", "query_embed"):
        key = f"{HEAD}{name}.weight"
        loaded = model.state_dict()[key]
        assert torch.equal(loaded[:10], weights[key]) and torch.equal(loaded[10:], own[key][10:])
    assert sentences() == [
        f"{HEAD}{name}: the file's 10 queries are the first of 16; the others start anew"
        for name in ("query_feat", "query_embed")
    ]


def test_fewer_queries_of_an_early_checkpoint(coco, sentences, tmp_path):
    _, weights = coco
    early = {k.replace("query_feat", "static_query"): v for k, v in weights.items()}
    torch.save(early, tmp_path / "early.pth")
    model = build(1, 133, 4)
    Checkpointer(model).load(str(tmp_path / "early.pth"))
    for name in ("query_feat", "query_embed"):
        key = f"{HEAD}{name}.weight"
        assert torch.equal(model.state_dict()[key], weights[key][:4])
    assert sentences() == [
        f"{HEAD}{name}: the first 4 of the file's 10 queries are taken"
        for name in ("query_feat", "query_embed")
    ]


def test_queries_that_stand_for_classes_are_not_mixed(tmp_path, sentences):
    """PerPixelBaselinePlusHead has no classifier: its query i is class i."""
    overrides = (
        *("MODEL.META_ARCHITECTURE", "SemanticSegmentor"),
        *("MODEL.SEM_SEG_HEAD.NAME", "PerPixelBaselinePlusHead"),
        *("MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME", "TransformerEncoderPixelDecoder"),
        *("MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME", "StandardTransformerDecoder"),
        *("MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE", "transformer_encoder"),
    )
    Checkpointer(build(0, 6, 6, *overrides), str(tmp_path)).save("six")
    model = build(1, 4, 4, *overrides)
    key = f"{HEAD}query_embed.weight"
    own = model.state_dict()[key].clone()
    Checkpointer(model).load(str(tmp_path / "six.pth"))
    assert torch.equal(model.state_dict()[key], own)
    assert f"{key}: (6, 64) in the file, (4, 64) in the model: starts anew" in sentences()


def test_another_width_starts_anew_and_is_said(coco, sentences):
    path, weights = coco
    model = build(1, 133, 10, "MODEL.SEM_SEG_HEAD.MASK_DIM", 16)
    Checkpointer(model).load(path)
    said = sentences()
    assert f"{HEAD}mask_embed.layers.2.weight: (32, 64) in the file, (16, 64) in the model" in (
        s.removesuffix(": starts anew") for s in said
    )
    key = f"{HEAD}mask_embed.layers.1.weight"
    assert torch.equal(model.state_dict()[key], weights[key])


def test_what_is_missing_is_said_by_modules(coco, sentences, tmp_path):
    _, weights = coco
    bare = {k.removeprefix("backbone."): v for k, v in weights.items() if "backbone" in k}
    torch.save({"model": bare | {"fc.weight": torch.zeros(9, 9)}}, tmp_path / "bare.pth")
    model = build(1, 133, 10)
    Checkpointer(model).load(f"{tmp_path / 'bare.pth'}?matching_heuristics=True")
    num_keys = sum(key.startswith("sem_seg_head.") for key in weights)
    assert sentences() == [
        f"not in the file, starts anew: sem_seg_head ({num_keys} keys)",
        "not in the model, not taken: fc",
    ]


@pytest.mark.parametrize(
    "num_classes, num_queries, advice",
    [
        (2, 10, "set MODEL.SEM_SEG_HEAD.NUM_CLASSES=133, or use other weights"),
        (133, 4, "set MODEL.MASK_FORMER.NUM_OBJECT_QUERIES=10, or use other weights"),
        (
            *(2, 16),
            "set MODEL.MASK_FORMER.NUM_OBJECT_QUERIES=10 and MODEL.SEM_SEG_HEAD.NUM_CLASSES=133, "
            "or use other weights",
        ),
    ],
)
def test_evaluation_names_the_keys_to_set(coco, num_classes, num_queries, advice):
    path, _ = coco
    with pytest.raises(ValueError, match="another shape") as error:
        Checkpointer(build(1, num_classes, num_queries), must_fit=True).load(path)
    assert str(error.value).endswith(f"; {advice}") and "\n" not in str(error.value)


def test_keys_are_not_named_if_they_would_not_help(coco):
    path, _ = coco
    model = build(1, 2, 10, "MODEL.SEM_SEG_HEAD.MASK_DIM", 16)
    with pytest.raises(ValueError, match="use the config that they were trained with"):
        Checkpointer(model, must_fit=True).load(path)


def test_resuming_takes_no_part_of_a_checkpoint(tmp_path):
    Checkpointer(build(0, 5, 10), str(tmp_path)).save("model_0000009")
    with pytest.raises(ValueError, match=r"NUM_OBJECT_QUERIES=10"):
        Checkpointer(build(1, 5, 12), str(tmp_path)).resume_or_load("", resume=True)
