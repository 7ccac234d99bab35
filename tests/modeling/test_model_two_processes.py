"""Two processes with one image each do what one process does with both images."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.modeling import build_model
from tiny_model import example, tiny_config
from torch.nn.parallel import DistributedDataParallel

# Frozen normalisation: the statistics of batch norm would differ for reasons of their own.
CONFIG = (
    *("MODEL.RESNETS.NORM", "FrozenBN"),
    *("MODEL.MASK_FORMER.CLASS_NORM_OVER_RANKS", True),
)


MASK_FORMER_V1 = (
    *("MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME", "StandardTransformerDecoder"),
    *("MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE", "res5"),
    *("MODEL.MASK_FORMER.MASK_LOSS", "whole_masks"),
    *("MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME", "BasePixelDecoder"),
)


def make_model(overrides):
    torch.manual_seed(0)
    return build_model(tiny_config(*CONFIG, *overrides)).train()


def train_rank(rank, init_file, overrides, num_targets, results):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{init_file}", rank=rank, world_size=2)
    model = DistributedDataParallel(make_model(overrides))
    losses = model([example(rank, num_targets[rank])])
    sum(losses.values()).backward()
    gradients = {name: p.grad for name, p in model.module.named_parameters()}
    torch.save(({k: v.detach() for k, v in losses.items()}, gradients), f"{results}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("overrides", "num_targets"), [((), (2, 4)), ((), (3, 0)), (MASK_FORMER_V1, (2, 4))]
)
def test_losses_and_gradients_agree(tmp_path, overrides, num_targets):
    mp.spawn(train_rank, (tmp_path / "init", overrides, num_targets, tmp_path), nprocs=2)
    losses, gradients = zip(*(torch.load(tmp_path / f"{rank}.pt") for rank in range(2)))

    model = make_model(overrides)
    expected = model([example(rank, n) for rank, n in enumerate(num_targets)])
    sum(expected.values()).backward()

    for name, loss in expected.items():
        mean = (losses[0][name] + losses[1][name]) / 2
        torch.testing.assert_close(mean, loss.detach(), rtol=1e-4, atol=1e-5)
    for name, parameter in model.named_parameters():
        assert torch.equal(gradients[0][name], gradients[1][name])
        # Other batch shapes round otherwise, and a ReLU or a mask's border may tip over.
        difference = (gradients[0][name] - parameter.grad).norm()
        assert difference <= 5e-3 * parameter.grad.norm() + 1e-6, name
