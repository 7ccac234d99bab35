"""Results that are made of a few masks at a time are those of all masks at once."""

from dataclasses import replace

import pytest
import torch
from inference_cases import (
    CLASSES,
    GEOMETRIES,
    QUERIES,
    THINGS,
    all_at_once,
    count_growing,
    full_size,
    instances_of_all,
    make_case,
    panoptic_of_all,
    semantic_of_all,
)
from peak_memory import peak_memory

from mask2former.layers.packed_masks import PackedMasks
from mask2former.modeling import inference
from mask2former.modeling.inference import (
    instance_inference,
    panoptic_inference,
    semantic_inference,
)

MASK_BYTES = 4 * 64 * 96  # of the padded input, or more where the output is larger
CHUNKS = [1, 3 * MASK_BYTES, 10**9]


@pytest.fixture(params=CHUNKS, ids=["one", "some", "all"])
def chunk_bytes(request, monkeypatch):
    monkeypatch.setattr(inference, "CHUNK_BYTES_ON_CPU", request.param)
    return request.param


geometries = pytest.mark.parametrize("geometry", GEOMETRIES)


@geometries
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_masks_grow_as_all_at_once(geometry, dtype, chunk_bytes):
    _, masks = make_case(geometry)
    masks = replace(masks, logits=masks.logits.to(dtype))
    queries = torch.tensor([7, 2, 2, 10, 0, 5, 4])
    parts = list(masks.chunks(queries))
    assert len(parts) == {1: 7, 10**9: 1}.get(chunk_bytes, 3 if geometry != "larger" else 7)
    assert [q for part, _ in parts for q in queries[part]] == queries.tolist()
    grown = torch.cat([logits for _, logits in parts])
    assert grown.dtype == torch.float32
    assert torch.equal(grown, all_at_once(masks)[queries])


def test_no_queries_give_no_chunks():
    _, masks = make_case()
    assert list(masks.chunks(torch.zeros(0, dtype=torch.int64))) == []


@geometries
def test_semantic(geometry, chunk_bytes):
    case = make_case(geometry)
    expected = semantic_of_all(*case)
    # Sums of Q products, each below 1, in another order.
    torch.testing.assert_close(semantic_inference(*case), expected, rtol=0, atol=QUERIES * 1e-6)


@geometries
@pytest.mark.parametrize("ties", [False, True])
def test_panoptic_is_equal_bit_by_bit(geometry, ties, chunk_bytes):
    num_segments = []
    for seed in range(4):
        case = make_case(geometry, seed, ties=ties)
        for thresholds in ((0.0, 0.0), (0.5, 0.3), (0.8, 0.8)):
            ids, segments = panoptic_inference(*case, THINGS, *thresholds)
            expected, expected_segments = panoptic_of_all(*case, THINGS, *thresholds)
            assert ids.dtype == torch.int32 and torch.equal(ids, expected)
            assert segments == expected_segments
            num_segments.append(len(segments))
    assert max(num_segments) > 1


def test_panoptic_of_equal_queries_belongs_to_the_first(chunk_bytes):
    class_logits = torch.zeros(5, CLASSES + 1)
    class_logits[:, 0] = 9
    ids, segments = panoptic_inference(
        class_logits, full_size(torch.full((5, 64, 96), 4.0)), THINGS, 0.5, 0.0
    )
    assert len(segments) == 1 and (ids == 1).all()


@pytest.mark.parametrize("threshold", [1.0, 0.0])
def test_panoptic_keeps_none_or_all(threshold, chunk_bytes, monkeypatch):
    class_logits, masks = make_case()
    class_logits[:, -1] = -20
    expected, segments = panoptic_of_all(class_logits, masks, THINGS, threshold, 0.0)
    counts = count_growing(monkeypatch)
    ids, found = panoptic_inference(class_logits, masks, THINGS, threshold, 0.0)
    assert torch.equal(ids, expected) and found == segments
    assert counts[64, 96] == (0 if threshold else QUERIES)


@geometries
@pytest.mark.parametrize("pack_masks", [False, True])
@pytest.mark.parametrize("options", [(30,), (30, THINGS), (30, None, 0.2), (30, None, 2.0), (3,)])
def test_instances_are_equal_bit_by_bit(geometry, pack_masks, options, chunk_bytes):
    case = make_case(geometry, seed=len(options))
    scores, classes, masks, boxes = instances_of_all(*case, *options)
    options = dict(zip(("num_instances", "classes", "score_threshold"), options))
    result = instance_inference(*case, **options, pack_masks=pack_masks)
    assert isinstance(result.pred_masks, PackedMasks if pack_masks else torch.Tensor)
    found = result.pred_masks.tensor if pack_masks else result.pred_masks
    assert found.dtype == torch.bool and torch.equal(found, masks)
    assert torch.equal(result.pred_boxes.tensor, boxes)
    assert torch.equal(result.pred_classes, classes)
    torch.testing.assert_close(result.scores, scores, rtol=1e-6, atol=0)
    assert result.image_size == case[1].output_size


def test_no_instances_at_all():
    class_logits, masks = make_case()
    for pack_masks in (False, True):
        result = instance_inference(class_logits, masks, 30, classes=(), pack_masks=pack_masks)
        assert len(result) == 0 and result.pred_masks.shape == (0, 50, 77)
        assert result.pred_boxes.tensor.shape == (0, 4)


def test_only_what_is_needed_grows(monkeypatch):
    class_logits, masks = make_case("larger")
    scores, classes = class_logits.softmax(-1).max(-1)
    num_kept = int(((scores > 0.6) & (classes < CLASSES)).sum())
    best = class_logits.softmax(-1)[:, :-1].flatten().topk(12).indices // CLASSES
    num_distinct = len(set(best.tolist()))
    assert 0 < num_kept < QUERIES and num_distinct < 12
    counts = count_growing(monkeypatch)
    panoptic_inference(class_logits, masks, THINGS, 0.6, 0.0)
    assert counts == {masks.padded_size: num_kept, masks.output_size: num_kept}
    counts.clear()
    instance_inference(class_logits, masks, 12)
    assert counts == {masks.padded_size: num_distinct, masks.output_size: num_distinct}


RESULTS = {
    "semantic": semantic_inference,
    "panoptic": lambda *case: panoptic_inference(*case, THINGS, 0.0, 0.0),
    "instances": lambda *case: instance_inference(*case, 8, pack_masks=True),
}


@pytest.mark.parametrize("name", RESULTS)
def test_memory_does_not_grow_with_the_queries(name, monkeypatch):
    monkeypatch.setattr(inference, "CHUNK_BYTES_ON_CPU", 2 * 4 * 81 * 131)
    held = {}
    for num_queries in (8, 80):
        class_logits, masks = make_case("larger", queries=num_queries)
        class_logits[:, -1] = -20  # panoptic keeps all
        _, held[num_queries] = peak_memory(lambda case=(class_logits, masks): RESULTS[name](*case))
    pixels = 81 * 131
    assert held[80] - held[8] < pixels  # not even a byte a pixel for 72 more
    assert held[80] < 14 * 4 * pixels  # semantic has 4 classes, and a chunk 2 masks
