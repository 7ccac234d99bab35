"""Our inference on the official implementation's inputs gives its outputs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from inference_cases import full_size

from mask2former.modeling.inference import (
    instance_inference,
    panoptic_inference,
    semantic_inference,
    tight_boxes,
)

THINGS = range(5)


@pytest.fixture(scope="module")
def golden():
    return np.load(Path(__file__).parent / "inference.npz")


@pytest.fixture(scope="module")
def logits(golden):
    mask_logits = torch.from_numpy(golden["mask_logits"])
    return torch.from_numpy(golden["class_logits"]), full_size(mask_logits)


def test_semantic(golden, logits):
    np.testing.assert_allclose(semantic_inference(*logits), golden["semantic"], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "thresholds"), [("panoptic", (0.8, 0.8)), ("panoptic_loose", (0.5, 0.3))]
)
def test_panoptic(golden, logits, name, thresholds):
    segment_map, segments = panoptic_inference(*logits, THINGS, *thresholds)
    np.testing.assert_array_equal(segment_map, golden[name])
    rows = [[s["id"], s["category_id"], s["isthing"]] for s in segments]
    np.testing.assert_array_equal(rows, golden[f"{name}_segments"])


@pytest.mark.parametrize(("name", "classes"), [("thing_only", THINGS), ("all", None)])
def test_instances(golden, logits, name, classes):
    instances = instance_inference(*logits, 30, classes)
    instances = instances[instances.scores.argsort(descending=True)]
    np.testing.assert_allclose(instances.scores, golden[f"{name}_scores"], atol=1e-5)
    np.testing.assert_array_equal(instances.pred_classes, golden[f"{name}_classes"])
    np.testing.assert_array_equal(instances.pred_masks.sum((1, 2)), golden[f"{name}_areas"])
    assert torch.equal(instances.pred_boxes.tensor, tight_boxes(instances.pred_masks))
