"""Small MaskFormers and per-pixel baselines of every kind: the official (v1) numbers.

R18 with 64 channels, no dropout, so that nothing is random. Weights are made from the parameters'
names and shapes (seeding.py): a name that is not the official one would show in every number.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Instances
from golden_model import (
    first_losses,
    golden_config,
    outputs_of_head,
    train_without_batch_statistics,
)
from seeding import seed_model, seeded_image, seeded_masks

VARIANTS = json.loads((Path(__file__).parent / "maskformer_variants.json").read_text())


def training_batch(heights):
    """Two images; of each 4 discs, as masks and, where a later one hides an earlier, as labels."""
    batch = []
    for seed, height in enumerate(heights):
        classes, masks = seeded_masks(64 if seed == 0 else 56, 96, 4, 7, seed)
        instances = Instances(tuple(masks.shape[1:]))
        instances.gt_classes, instances.gt_masks = classes, masks
        sem_seg = torch.full((height, 96), 255)
        for label, mask in zip(classes, masks):
            sem_seg[: len(mask)][mask] = label
        image = seeded_image(height, 96, seed)
        batch.append({"image": image, "instances": instances, "sem_seg": sem_seg})
    return batch


@pytest.mark.parametrize("name", VARIANTS)
def test_variant(name):
    golden = VARIANTS[name]
    model = seed_model(
        build_model(golden_config(f"maskformer/{golden['config']}", *golden["overrides"]))
    )
    # The official baselines take whole strides only; MaskFormer pads.
    batch = training_batch((64, 64 if name.startswith("per_pixel") else 56))
    close = {"rtol": 1e-4, "atol": 2e-4}

    inputs = [{"image": x["image"], "height": 70, "width": 80} for x in batch]
    is_set = "pred_logits" in golden
    if is_set:
        outputs, results = outputs_of_head(model.eval(), inputs)
        class_logits = outputs["pred_logits"][:, ::3].flatten(1)
        np.testing.assert_allclose(class_logits, golden["pred_logits"], **close)
        stats = [[x["pred_masks"].mean(), x["pred_masks"].std()] for x in outputs["aux_outputs"]]
        np.testing.assert_allclose(stats, golden["aux"], **close)
    else:
        with torch.no_grad():
            results = model.eval()(inputs)
    scores = [x["sem_seg"][:, ::30, ::30].flatten() for x in results]
    np.testing.assert_allclose(torch.stack(scores), golden["sem_seg"], **close)

    with torch.no_grad():
        losses = train_without_batch_statistics(model)(batch)
    assert {k: pytest.approx(v.item(), rel=1e-3) for k, v in losses.items()} == golden["losses"]
    trajectory = first_losses(model, batch, 3)
    np.testing.assert_allclose(trajectory, golden["trajectory"], rtol=2e-3)
