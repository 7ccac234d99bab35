"""Saving, resuming, and loading weights of other projects by the ends of their names."""

import pickle

import numpy as np
import pytest
import torch
from detectron2.checkpoint import Checkpointer, DetectionCheckpointer, PeriodicCheckpointer
from detectron2.layers import FrozenBatchNorm2d
from torch import nn


class ConvNorm(nn.Conv2d):
    """A 1x1 convolution with its norm as a child, as in detectron2's ResNet."""

    def __init__(self, inside, outside):
        super().__init__(inside, outside, 1, bias=False)
        self.norm = FrozenBatchNorm2d(outside)


class Net(nn.Module):
    """stem.conv1, and res2.0.{shortcut,conv1,conv2,conv3}, 3 to 6 channels."""

    def __init__(self):
        super().__init__()
        self.stem = nn.ModuleDict({"conv1": ConvNorm(3, 2)})
        channels = {"shortcut": (2, 3), "conv1": (2, 4), "conv2": (4, 5), "conv3": (5, 6)}
        block = nn.ModuleDict({name: ConvNorm(*c) for name, c in channels.items()})
        self.res2 = nn.Sequential(block)


class Model(nn.Module):
    def __init__(self, head_width=4):
        super().__init__()
        self.backbone = Net()
        self.head = nn.Linear(6, head_width)
        self.register_buffer("pixel_mean", torch.zeros(3, 1, 1))


def random_weights(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {k: torch.rand(v.shape, generator=generator) for k, v in model.state_dict().items()}


def dump(data, path, protocol=2):
    with open(path, "wb") as file:
        pickle.dump(data, file, protocol=protocol)
    return str(path)


def arrays(weights):
    return {name: value.numpy() for name, value in weights.items()}


def assert_weights(model, expected):
    state = model.state_dict()
    for name, value in expected.items():
        torch.testing.assert_close(state[name], torch.as_tensor(value), msg=name)


def test_what_was_saved_is_loaded(tmp_path):
    model = Model()
    model.load_state_dict(random_weights(model))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    model.head(torch.ones(6)).sum().backward()
    optimizer.step()
    checkpointer = DetectionCheckpointer(model, str(tmp_path), optimizer=optimizer)
    assert not checkpointer.has_checkpoint()
    checkpointer.save("model_0000009", iteration=9, note={"a": [1, 2.5, "x", None]})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last_checkpoint", "model_0000009.pth"]
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000009.pth"
    assert set(torch.load(tmp_path / "model_0000009.pth")) == {
        "model",
        "optimizer",
        "iteration",
        "note",
    }

    other = Model()
    other_optimizer = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9)
    checkpointer = DetectionCheckpointer(other, str(tmp_path), optimizer=other_optimizer)
    assert checkpointer.has_checkpoint()
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "model_0000009.pth")
    rest = checkpointer.resume_or_load("", resume=True)
    assert rest["iteration"] == 9
    assert rest["note"] == {"a": [1, 2.5, "x", None]}
    assert_weights(other, model.state_dict())
    assert other_optimizer.param_groups[0]["lr"] == 0.5
    momentum = optimizer.state[model.head.weight]["momentum_buffer"]
    torch.testing.assert_close(
        other_optimizer.state[other.head.weight]["momentum_buffer"], momentum
    )


def test_without_resume_only_the_model_is_loaded(tmp_path):
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    DetectionCheckpointer(model, str(tmp_path), optimizer=optimizer).save("first", iteration=3)
    other = Model()
    other_optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
    checkpointer = DetectionCheckpointer(other, str(tmp_path), optimizer=other_optimizer)
    checkpointer.resume_or_load(str(tmp_path / "first.pth"), resume=False)
    assert_weights(other, model.state_dict())
    assert other_optimizer.param_groups[0]["lr"] == 0.1


def test_no_path_loads_nothing(tmp_path):
    model = Model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    checkpointer = DetectionCheckpointer(model, str(tmp_path))
    assert checkpointer.load("") == {}
    assert checkpointer.resume_or_load("", resume=True) == {}
    assert_weights(model, before)


def test_saving_can_be_switched_off(tmp_path):
    DetectionCheckpointer(Model(), str(tmp_path), save_to_disk=False).save("a")
    DetectionCheckpointer(Model()).save("a")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises((AssertionError, FileNotFoundError), match=r"none\.pth"):
        DetectionCheckpointer(Model()).load(str(tmp_path / "none.pth"))


def test_periodic_checkpoints(tmp_path):
    checkpointer = DetectionCheckpointer(Model(), str(tmp_path))
    periodic = PeriodicCheckpointer(checkpointer, period=2, max_iter=7, max_to_keep=2)
    for iteration in range(7):
        periodic.step(iteration, epoch=iteration // 2)
    names = ["model_0000003.pth", "model_0000005.pth", "model_final.pth"]
    assert sorted(p.name for p in tmp_path.glob("*.pth")) == names
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    kept = Checkpointer(Model(), str(tmp_path)).get_all_checkpoint_files()
    assert sorted(kept) == [str(tmp_path / n) for n in names]
    rest = DetectionCheckpointer(Model(), str(tmp_path)).resume_or_load("", resume=True)
    assert (rest["iteration"], rest["epoch"]) == (6, 3)


def incompatible_keys(checkpointer, path):
    """What fvcore would report of a load."""
    found = []
    checkpointer._log_incompatible_keys = found.append
    checkpointer.load(path)
    return found[0]


def test_what_does_not_fit_is_reported_and_the_rest_loaded(tmp_path):
    weights = random_weights(Model(head_width=7))
    del weights["head.bias"], weights["pixel_mean"]
    weights["extra.weight"] = torch.zeros(1)
    torch.save({"model": weights}, tmp_path / "a.pth")
    model = Model()
    report = incompatible_keys(DetectionCheckpointer(model), str(tmp_path / "a.pth"))
    assert report.incorrect_shapes == [("head.weight", (7, 6), (4, 6))]
    assert set(report.missing_keys) - {"head.weight"} == {"head.bias"}  # not pixel_mean
    assert report.unexpected_keys == ["extra.weight"]
    assert_weights(model, {k: v for k, v in weights.items() if k.startswith("backbone.")})


def test_a_bare_state_dict_of_a_wrapped_model(tmp_path):
    weights = random_weights(Model())
    torch.save({f"module.{name}": value for name, value in weights.items()}, tmp_path / "a.pth")
    model = Model()
    assert DetectionCheckpointer(model).load(str(tmp_path / "a.pth")) == {}
    assert_weights(model, weights)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pickles_of_the_model_zoo(tmp_path, protocol):
    weights = random_weights(Model())
    data = {"model": arrays(weights), "__author__": "somebody"}
    model = Model()
    DetectionCheckpointer(model).load(dump(data, tmp_path / "a.pkl", protocol))
    assert_weights(model, weights)


def test_pickles_of_tensors(tmp_path):
    weights = random_weights(Net())
    data = {"model": weights, "__author__": "third_party", "matching_heuristics": True}
    model = Model()
    DetectionCheckpointer(model).load(dump(data, tmp_path / "a.pkl"))
    assert_weights(model.backbone, weights)


@pytest.mark.parametrize("suffix", [".pkl", ".pth"])
def test_names_match_by_their_ends(tmp_path, suffix):
    weights = random_weights(Net()) | {"fc.weight": torch.zeros(2, 2)}
    path = str(tmp_path / f"a{suffix}")
    if suffix == ".pkl":
        data = {"model": arrays(weights), "__author__": "x", "matching_heuristics": True}
        dump(data, path)
    else:
        torch.save(weights, path)
        path += "?matching_heuristics=True"
    model = Model()
    report = incompatible_keys(DetectionCheckpointer(model), path)
    assert sorted(report.missing_keys) == ["head.bias", "head.weight"]
    assert report.unexpected_keys == ["fc.weight"]
    del weights["fc.weight"]
    assert_weights(model.backbone, weights)


def test_the_longest_end_wins_and_must_be_whole_components(tmp_path):
    model = nn.ModuleDict(
        {
            "a": nn.ModuleDict({"conv": nn.Linear(1, 1), "my_conv": nn.Linear(1, 1)}),
            "b": nn.ModuleDict({"conv": nn.Linear(1, 1)}),
        }
    )
    nn.init.zeros_(model["a"]["my_conv"].weight)
    weights = {"conv.weight": torch.full((1, 1), 5.0), "a.conv.weight": torch.full((1, 1), 6.0)}
    torch.save(weights, tmp_path / "a.pth")
    DetectionCheckpointer(model).load(f"{tmp_path / 'a.pth'}?matching_heuristics=True")
    assert model["a"]["conv"].weight.item() == 6
    assert model["b"]["conv"].weight.item() == 5
    assert model["a"]["my_conv"].weight.item() == 0


def test_an_ambiguous_name_is_an_error(tmp_path):
    model = nn.ModuleDict(
        {"a": nn.Sequential(nn.Linear(1, 1)), "b": nn.Sequential(nn.Linear(1, 1))}
    )
    torch.save({"0.weight": torch.zeros(1, 1)}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="in the model"):
        DetectionCheckpointer(model).load(f"{tmp_path / 'a.pth'}?matching_heuristics=True")


def test_a_matching_name_of_another_shape_is_left_out(tmp_path):
    weights = random_weights(Net())
    weights["stem.conv1.weight"] = torch.zeros(9, 9)
    torch.save(weights, tmp_path / "a.pth")
    model = Model()
    path = f"{tmp_path / 'a.pth'}?matching_heuristics=True"
    report = incompatible_keys(DetectionCheckpointer(model), path)
    assert "backbone.stem.conv1.weight" in report.missing_keys
    assert report.unexpected_keys == ["stem.conv1.weight"]


def test_an_unknown_query_is_an_error(tmp_path):
    torch.save(random_weights(Model()), tmp_path / "a.pth")
    with pytest.raises(ValueError, match="colour"):
        DetectionCheckpointer(Model()).load(f"{tmp_path / 'a.pth'}?colour=red")


# detectron2's names of Net -> Caffe2's, with its two ways to write a batch norm
CAFFE2 = {
    "stem.conv1.weight": "conv1_w",
    "stem.conv1.norm.weight": "res_conv1_bn_s",
    "stem.conv1.norm.bias": "res_conv1_bn_b",
    "stem.conv1.norm.running_mean": "res_conv1_bn_rm",
    "stem.conv1.norm.running_var": "res_conv1_bn_riv",
    "res2.0.shortcut.weight": "res2_0_branch1_w",
    "res2.0.shortcut.norm.weight": "res2_0_branch1_bn_gamma",
    "res2.0.shortcut.norm.bias": "res2_0_branch1_bn_beta",
    "res2.0.shortcut.norm.running_mean": "res2_0_branch1_bn_running_mean",
    "res2.0.shortcut.norm.running_var": "res2_0_branch1_bn_running_var",
    "res2.0.conv1.weight": "res2_0_branch2a_w",
    "res2.0.conv1.norm.weight": "res2_0_branch2a_bn_s",
    "res2.0.conv1.norm.bias": "res2_0_branch2a_bn_b",
    "res2.0.conv2.weight": "res2_0_branch2b_w",
    "res2.0.conv2.norm.weight": "res2_0_branch2b_gn_s",
    "res2.0.conv2.norm.bias": "res2_0_branch2b_gn_b",
    "res2.0.conv3.weight": "res2_0_branch2c_w",
    "res2.0.conv3.norm.weight": "res2_0_branch2c_bn_s",
    "res2.0.conv3.norm.bias": "res2_0_branch2c_bn_b",
}


@pytest.mark.parametrize("has_blobs", [False, True])
def test_caffe2_pickles(tmp_path, has_blobs):
    weights = {name: value for name, value in random_weights(Net()).items() if name in CAFFE2}
    blobs = {CAFFE2[name]: value.numpy() for name, value in weights.items()}
    blobs |= {
        "fc1000_w": np.zeros((2, 2)),
        "pred_b": np.zeros(2),
        "conv1_w_momentum": np.zeros((2, 3, 1, 1)),
    }
    path = dump({"blobs": blobs, "cfg": "text"} if has_blobs else blobs, tmp_path / "R-50.pkl")
    model = Model()
    report = incompatible_keys(DetectionCheckpointer(model), path)
    assert_weights(model.backbone, weights)
    assert sorted(report.unexpected_keys) == ["fc1000.weight", "linear.bias"]
    # A norm that was merged into scale and bias has no statistics: they stay 0 and 1.
    missing = [k for k in report.missing_keys if "running" not in k]
    assert sorted(missing) == ["head.bias", "head.weight"]
    assert_weights(
        model.backbone,
        {
            "res2.0.conv1.norm.running_mean": torch.zeros(4),
            "res2.0.conv1.norm.running_var": torch.ones(4),
        },
    )
