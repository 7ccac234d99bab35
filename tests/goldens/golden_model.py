"""What every golden of a whole model is tested for; a test file names the golden and its config.

class TestCityscapes(GoldenModel):
    tag, num_classes = "m2f_cityscapes_sem_r50", 19
    config = "cityscapes/semantic-segmentation/maskformer2_R50_bs16_90k.yaml"
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from detectron2.projects.deeplab import add_deeplab_config
from detectron2.structures import Instances
from seeding import seed_model, seeded_image, seeded_masks
from torch import nn

from mask2former import modeling  # noqa: F401  (registers the model)
from mask2former.config import add_maskformer2_config, get_config_file

HERE = Path(__file__).parent


def golden_config(name: str, *overrides) -> CfgNode:
    """The config of this name under configs/, for the CPU and without weights."""
    cfg = get_cfg()
    add_deeplab_config(cfg)
    add_maskformer2_config(cfg)
    cfg.merge_from_file(get_config_file(name))
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", *overrides])
    return cfg


def inference_batch() -> list[dict]:
    return [
        {"image": seeded_image(128, 192, 0), "height": 128, "width": 192},
        {"image": seeded_image(128, 160, 1), "height": 144, "width": 192},
    ]


def training_batch(num_classes: int) -> list[dict]:
    batch = []
    for seed in range(2):
        instances = Instances((128, 192))
        instances.gt_classes, instances.gt_masks = seeded_masks(128, 192, 6, num_classes, seed)
        batch.append({"image": seeded_image(128, 192, seed), "instances": instances})
    return batch


def train_without_batch_statistics(model: nn.Module) -> nn.Module:
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    return model


def outputs_of_head(model: nn.Module, batch: list[dict]) -> tuple[dict, list[dict] | dict]:
    """What the criterion or the inference gets, and the model's own result."""
    captured = {}
    hook = model.sem_seg_head.register_forward_hook(lambda _, __, out: captured.update(out))
    with torch.no_grad():
        result = model(batch)
    hook.remove()
    return captured, result


def first_losses(model: nn.Module, batch: list[dict], num_steps: int) -> list[float]:
    """Total loss of the first steps under AdamW with clipped gradients; the weights come back."""
    state = {k: v.clone() for k, v in model.state_dict().items()}
    train_without_batch_statistics(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05)
    losses = []
    for _ in range(num_steps):
        loss = sum(model(batch).values())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        optimizer.step()
        losses.append(loss.item())
    model.load_state_dict(state)
    return losses


class GoldenModel:
    """A model on the official implementation's weights and images gives its numbers."""

    tag: str
    num_classes: int
    config: str
    # Dropout or stochastic depth: each of the seeds then needs a forward pass of its own.
    is_forward_random = False
    num_seeds = 16  # as many as the golden's loss_mean and loss_std are of
    class_stride = 1  # of the classes of sem_seg_B_s8 that the golden keeps

    @pytest.fixture(scope="class")
    @classmethod
    def golden(cls) -> dict[str, np.ndarray]:
        return dict(np.load(HERE / f"{cls.tag}.npz"))

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls) -> nn.Module:
        return seed_model(build_model(golden_config(cls.config)))

    @pytest.fixture(scope="class")
    @classmethod
    def inference(cls, model: nn.Module) -> tuple[dict, list[dict]]:
        """Outputs of the head, and the results, for `inference_batch()`."""
        return outputs_of_head(model.eval(), inference_batch())

    def test_state_dict(self, model):
        expected = json.loads((HERE / f"{self.tag}.keys.json").read_text())
        assert {k: list(v.shape) for k, v in model.state_dict().items()} == expected

    def test_forward(self, inference, golden):
        outputs, results = inference
        close = {"rtol": 0, "atol": 1e-3}
        np.testing.assert_allclose(outputs["pred_logits"], golden["pred_logits"], **close)
        masks = outputs["pred_masks"][:, ::7, ::4, ::4]
        np.testing.assert_allclose(masks, golden["pred_masks_s4"], **close)
        num_layers = sum(key.endswith("_logits_q7") for key in golden)
        assert len(outputs["aux_outputs"]) == num_layers > 0
        for i, layer in enumerate(outputs["aux_outputs"]):
            class_logits = layer["pred_logits"][:, ::7]
            np.testing.assert_allclose(class_logits, golden[f"aux{i}_logits_q7"], **close)
            masks = layer["pred_masks"]
            np.testing.assert_allclose(
                [masks.mean(), masks.std()], golden[f"aux{i}_masks_stat"], **close
            )
        for i, result in enumerate(results):
            scores = result["sem_seg"][:: self.class_stride, ::8, ::8]
            np.testing.assert_allclose(scores, golden[f"sem_seg_{i}_s8"], **close)

    def test_losses(self, model, golden):
        """Random through their points: the mean over the seeds within 4 standard errors or 1 %."""
        batch = training_batch(self.num_classes)
        train_without_batch_statistics(model)
        targets = [
            {"labels": x["instances"].gt_classes, "masks": x["instances"].gt_masks} for x in batch
        ]
        names = golden["loss_names"].tolist()
        samples = []
        with torch.no_grad():
            for seed in range(self.num_seeds):
                if seed == 0 or self.is_forward_random:
                    torch.manual_seed(seed)
                    outputs, losses = outputs_of_head(model, batch)
                    assert sorted(losses) == names
                if not self.is_forward_random:
                    generators = [torch.Generator().manual_seed(2 * seed + i) for i in range(2)]
                    losses = model.criterion(outputs, targets, generators)
                samples.append([losses[name] for name in names])
        error = np.abs(np.mean(samples, axis=0) - golden["loss_mean"])
        standard_error = golden["loss_std"] / self.num_seeds**0.5
        allowed = np.maximum(4 * standard_error, 0.01 * golden["loss_mean"])
        assert (error <= allowed).all(), dict(zip(names, error / allowed))
