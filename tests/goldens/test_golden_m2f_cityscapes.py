"""Our Mask2Former on the official implementation's weights and images gives its numbers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.projects.deeplab import add_deeplab_config
from detectron2.structures import Instances
from seeding import seed_model, seeded_image, seeded_masks
from torch import nn

from mask2former import modeling  # noqa: F401  (registers the model)
from mask2former.config import add_maskformer2_config, get_config_file

HERE = Path(__file__).parent
TAG = "m2f_cityscapes_sem_r50"
NUM_SEEDS = 16  # of the goldens' loss_mean and loss_std


@pytest.fixture(scope="module")
def golden():
    return np.load(HERE / f"{TAG}.npz")


@pytest.fixture(scope="module")
def model():
    cfg = get_cfg()
    add_deeplab_config(cfg)
    add_maskformer2_config(cfg)
    cfg.merge_from_file(
        get_config_file("cityscapes/semantic-segmentation/maskformer2_R50_bs16_90k.yaml")
    )
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", ""])
    return seed_model(build_model(cfg))


def train_without_batch_statistics(model):
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    return model


def training_batch():
    batch = []
    for seed in range(2):
        instances = Instances((128, 192))
        instances.gt_classes, instances.gt_masks = seeded_masks(128, 192, 6, 19, seed)
        batch.append({"image": seeded_image(128, 192, seed), "instances": instances})
    return batch


def outputs_of_head(model, batch):
    """What the criterion or the inference gets, and the model's own result."""
    captured = {}
    hook = model.sem_seg_head.register_forward_hook(lambda _, __, out: captured.update(out))
    with torch.no_grad():
        result = model(batch)
    hook.remove()
    return captured, result


def test_state_dict(model):
    expected = json.loads((HERE / f"{TAG}.keys.json").read_text())
    assert {k: list(v.shape) for k, v in model.state_dict().items()} == expected


def test_forward(model, golden):
    batch = [
        {"image": seeded_image(128, 192, 0), "height": 128, "width": 192},
        {"image": seeded_image(128, 160, 1), "height": 144, "width": 192},
    ]
    outputs, results = outputs_of_head(model.eval(), batch)
    close = {"rtol": 0, "atol": 1e-3}
    np.testing.assert_allclose(outputs["pred_logits"], golden["pred_logits"], **close)
    masks = outputs["pred_masks"][:, ::7, ::4, ::4]
    np.testing.assert_allclose(masks, golden["pred_masks_s4"], **close)
    assert len(outputs["aux_outputs"]) == 9
    for i, layer in enumerate(outputs["aux_outputs"]):
        class_logits = layer["pred_logits"][:, ::7]
        np.testing.assert_allclose(class_logits, golden[f"aux{i}_logits_q7"], **close)
        masks = layer["pred_masks"]
        np.testing.assert_allclose(
            [masks.mean(), masks.std()], golden[f"aux{i}_masks_stat"], **close
        )
    for i, result in enumerate(results):
        scores = result["sem_seg"][:, ::8, ::8]
        np.testing.assert_allclose(scores, golden[f"sem_seg_{i}_s8"], **close)


def test_losses(model, golden):
    """Random through their points: the mean over 16 seeds within 4 standard errors or 1 %."""
    batch = training_batch()
    outputs, first = outputs_of_head(train_without_batch_statistics(model), batch)
    assert sorted(first) == golden["loss_names"].tolist()
    targets = [
        {"labels": x["instances"].gt_classes, "masks": x["instances"].gt_masks} for x in batch
    ]
    samples = []
    with torch.no_grad():
        for seed in range(NUM_SEEDS):
            generators = [torch.Generator().manual_seed(2 * seed + i) for i in range(2)]
            losses = model.criterion(outputs, targets, generators)
            samples.append([losses[name] for name in golden["loss_names"]])
    error = np.abs(np.mean(samples, axis=0) - golden["loss_mean"])
    allowed = np.maximum(4 * golden["loss_std"] / NUM_SEEDS**0.5, 0.01 * golden["loss_mean"])
    assert (error <= allowed).all(), dict(zip(golden["loss_names"], error / allowed))


def test_first_training_steps(model, golden):
    """AdamW with clipped gradients, as golden: what backward and step make of the weights.

    The goldens' own three seeds differ by up to 0.3 % in the first four steps; 1 % is allowed.
    Later the runs drift apart.
    """
    state = {k: v.clone() for k, v in model.state_dict().items()}
    train_without_batch_statistics(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05)
    batch = training_batch()
    torch.manual_seed(0)
    losses = []
    for _ in range(4):
        loss = sum(model(batch).values())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        optimizer.step()
        losses.append(loss.item())
    model.load_state_dict(state)
    np.testing.assert_allclose(losses, golden["traj"][:, :4].mean(0), rtol=0.01)
