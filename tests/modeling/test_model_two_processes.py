"""Two processes with one image each do what one process does with both images."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.modeling import build_model
from tiny_model import example, tiny_config
from torch.nn.parallel import DistributedDataParallel

# Frozen normalisation: the statistics of batch norm would differ for reasons of their own.
COMPARED = (
    *("MODEL.RESNETS.NORM", "FrozenBN"),
    *("MODEL.MASK_FORMER.CLASS_NORM_OVER_RANKS", True),
)
MASK_FORMER_V1 = (
    *("MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME", "StandardTransformerDecoder"),
    *("MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE", "res5"),
    *("MODEL.MASK_FORMER.MASK_LOSS", "whole_masks"),
    *("MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME", "BasePixelDecoder"),
)
SHARED_STATISTICS = ("MODEL.RESNETS.NORM", "naiveSyncBN")
PARTS = ("RESNETS", "SEM_SEG_HEAD", "MASK_FORMER")
# name -> config, and the number of targets of either image
CASES = {
    "mask2former": (COMPARED, (2, 4)),
    "no_targets_on_one": (COMPARED, (3, 0)),
    "maskformer": ((*COMPARED, *MASK_FORMER_V1), (2, 4)),
    "plain": (SHARED_STATISTICS, (3, 3)),
    "checkpointed": (
        (*SHARED_STATISTICS, *(x for p in PARTS for x in (f"MODEL.{p}.USE_CHECKPOINT", True))),
        (3, 3),
    ),
}


def make_model(name):
    torch.manual_seed(0)
    return build_model(tiny_config(*CASES[name][0])).train()


def train_once(model, batch):
    """Losses, gradients, and the state afterwards."""
    losses = model(batch)
    sum(losses.values()).backward()
    model = getattr(model, "module", model)
    gradients = {name: p.grad for name, p in model.named_parameters()}
    return {k: v.detach() for k, v in losses.items()}, gradients, model.state_dict()


def train_rank(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/init", rank=rank, world_size=2)
    results = {
        name: train_once(
            DistributedDataParallel(make_model(name)), [example(rank, num_targets[rank])]
        )
        for name, (_, num_targets) in CASES.items()
    }
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """Of each process the results of all cases: starting processes takes longer than they do."""
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(train_rank, (folder,), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def assert_equal(found, expected):
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("name", ["mask2former", "no_targets_on_one", "maskformer"])
def test_losses_and_gradients_agree(ranks, name):
    losses, gradients, _ = zip(*(results[name] for results in ranks))
    batch = [example(rank, n) for rank, n in enumerate(CASES[name][1])]
    expected, expected_gradients, _ = train_once(make_model(name), batch)
    for key, loss in expected.items():
        mean = (losses[0][key] + losses[1][key]) / 2
        torch.testing.assert_close(mean, loss, rtol=1e-4, atol=1e-5)
    for key, gradient in expected_gradients.items():
        assert torch.equal(gradients[0][key], gradients[1][key])
        # Other batch shapes round otherwise, and a ReLU or a mask's border may tip over.
        difference = (gradients[0][key] - gradient).norm()
        assert difference <= 5e-3 * gradient.norm() + 1e-6, key


def test_computing_again_changes_nothing_where_statistics_are_shared(ranks):
    for results in ranks:
        for found, expected in zip(results["checkpointed"], results["plain"]):
            assert_equal(found, expected)
    assert_equal(*(results["plain"][2] for results in ranks))  # so the statistics were shared
