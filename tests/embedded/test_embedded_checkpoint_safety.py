"""No weight file runs code, a damaged one is named, and a save that fails loses nothing."""

import os
import pickle
import random

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.checkpoint.safe_load import load_plain
from torch import nn


class Attack:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def dump(data, path, protocol=4):
    with open(path, "wb") as file:
        pickle.dump(data, file, protocol=protocol)


class HiddenAttack:
    """The same within the bytes that a pickled tensor's storage is read from."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import io

        buffer = io.BytesIO()
        torch.save(Attack(self.path), buffer)
        return torch.storage._load_from_bytes, (buffer.getvalue(),)


@pytest.mark.parametrize("suffix", [".pkl", ".pth", ".pyth"])
@pytest.mark.parametrize("attack", [Attack, HiddenAttack])
def test_no_file_runs_code(tmp_path, suffix, attack):
    path, victim = tmp_path / f"weights{suffix}", tmp_path / "victim"
    data = {"model": {"weight": np.zeros((1, 1))}, "__author__": attack(victim)}
    if suffix == ".pkl":
        dump(data, path)
    else:
        torch.save(data, path)
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    with pytest.raises(ValueError) as caught:
        DetectionCheckpointer(model).load(str(path))
    message = str(caught.value)
    assert message.startswith(f"{path}: asks for ") and "\n" not in message
    if suffix == ".pkl" and attack is Attack:
        assert "posix.mkdir" in message or "nt.mkdir" in message
    assert not victim.exists()
    assert model.weight.item() == 1


PLAIN = {
    "model": {"weight": np.arange(6, dtype=np.float32).reshape(2, 3), "half": np.float16([1, 2])},
    "scalars": [np.float64(0.5), np.int64(3), True, None, 1.5, "text", b"\xffbytes"],
    "containers": [(1, 2), {3}, frozenset([4]), {"a": {}}],
}


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("numpy_1", [False, True])
def test_pickles_of_either_numpy(tmp_path, protocol, numpy_1):
    content = pickle.dumps(PLAIN, protocol=protocol)
    if protocol < 4:  # later ones write the length of a name before it
        names = [b"numpy._core", b"numpy.core"]
        content = content.replace(*(names if numpy_1 else reversed(names)))
    (tmp_path / "a.pkl").write_bytes(content)
    loaded = load_plain(str(tmp_path / "a.pkl"))
    np.testing.assert_array_equal(loaded["model"]["weight"], PLAIN["model"]["weight"])
    assert loaded["model"]["half"].dtype == np.float16
    assert loaded["scalars"] == PLAIN["scalars"]
    assert loaded["containers"] == PLAIN["containers"]


def saved(tmp_path, kind):
    path = tmp_path / f"model.{'pkl' if kind == 'pkl' else 'pth'}"
    weights = {f"layer{i}.weight": torch.rand(20, 20) for i in range(5)}
    if kind == "pkl":
        data = {"model": {k: v.numpy() for k, v in weights.items()}, "__author__": "x"}
        dump(data, path)
    else:
        torch.save({"model": weights}, path, _use_new_zipfile_serialization=kind == "zip")
    return path


@pytest.mark.parametrize("kind", ["pkl", "zip", "legacy"])
def test_a_truncated_file_is_named(tmp_path, kind):
    path = saved(tmp_path, kind)
    content = path.read_bytes()
    draw = random.Random(0)
    for length in [0, 1, 2, 4, 10, *(draw.randrange(len(content)) for _ in range(40))]:
        path.write_bytes(content[:length])
        with pytest.raises(ValueError) as caught:
            DetectionCheckpointer(nn.Linear(1, 1)).load(str(path))
        message = str(caught.value)
        # A name that is cut short is as unknown as that of an attack; only legacy files have some.
        assert message.startswith(f"{path}: truncated") or (
            kind == "legacy" and path.name in message
        )
        assert "\n" not in message


@pytest.mark.parametrize("kind", ["pkl", "zip", "legacy"])
def test_a_damaged_file_is_loaded_or_named(tmp_path, kind):
    path = saved(tmp_path, kind)
    content = path.read_bytes()
    draw = random.Random(1)
    num_named = 0
    for _ in range(150):
        damaged = bytearray(content)
        for _ in range(3):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        path.write_bytes(damaged)
        try:
            load_plain(str(path))
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")
            num_named += 1
    assert num_named > 0


@pytest.mark.parametrize("name", ["a.pkl", "a.pth"])
@pytest.mark.parametrize("data", [[1, 2], {"model": [1, 2]}, "text"])
def test_a_file_of_something_else_is_named(tmp_path, name, data):
    path = tmp_path / name
    if name == "a.pkl":
        dump(data, path)
    else:
        torch.save(data, path)
    with pytest.raises(ValueError, match=r"holds a (list|str) in place of named weights") as caught:
        DetectionCheckpointer(nn.Linear(1, 1)).load(str(path))
    assert str(caught.value).startswith(str(path))


class Full:
    """A state that cannot be written, as if the disk were full half-way."""

    def state_dict(self):
        return {"big": torch.zeros(100), "bad": self}

    def load_state_dict(self, state):
        pass

    def __reduce__(self):
        raise OSError("no space left on device")


def test_a_failed_save_leaves_the_last_one(tmp_path):
    model = nn.Linear(1, 1)
    checkpointer = DetectionCheckpointer(model, str(tmp_path))
    checkpointer.save("model", iteration=1)
    before = (tmp_path / "model.pth").read_bytes()
    checkpointer.add_checkpointable("full", Full())
    with pytest.raises(OSError, match="no space"):
        checkpointer.save("model", iteration=2)
    assert (tmp_path / "model.pth").read_bytes() == before
    rest = DetectionCheckpointer(nn.Linear(1, 1), str(tmp_path)).resume_or_load("", resume=True)
    assert rest["iteration"] == 1


class Bottleneck(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(2)
        self.downsample = nn.Sequential(nn.Conv2d(2, 2, 1, bias=False), nn.BatchNorm2d(2))


class TorchvisionNet(nn.Module):
    """The names of torchvision's ResNet, as far as one block."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 2, 7, bias=False)
        self.bn1 = nn.BatchNorm2d(2)
        self.layer1 = nn.Sequential(Bottleneck())
        self.fc = nn.Linear(2, 4)


@pytest.mark.parametrize("name", ["resnet.pth", "resnet.pkl"])
def test_resnets_of_torchvision(tmp_path, name):
    source = TorchvisionNet()
    weights = {k: torch.rand(v.shape) for k, v in source.state_dict().items()}
    if name.endswith("pkl"):
        arrays = {k: v.numpy() for k, v in weights.items()}
        dump({"model": arrays, "__author__": "torchvision"}, tmp_path / name)
    else:
        torch.save(weights, tmp_path / name)

    def conv_norm(conv):
        conv.norm = nn.BatchNorm2d(conv.out_channels)
        return conv

    def conv(size, inside):
        return conv_norm(nn.Conv2d(inside, 2, size, bias=False))

    block = nn.ModuleDict({"conv1": conv(1, 2), "shortcut": conv(1, 2)})
    backbone = nn.ModuleDict(
        {"stem": nn.ModuleDict({"conv1": conv(7, 3)}), "res2": nn.Sequential(block)}
    )
    model = nn.ModuleDict({"backbone": backbone})
    DetectionCheckpointer(model).load(str(tmp_path / name))
    state = backbone.state_dict()
    for theirs, ours in {
        "conv1.weight": "stem.conv1.weight",
        "bn1.running_var": "stem.conv1.norm.running_var",
        "layer1.0.conv1.weight": "res2.0.conv1.weight",
        "layer1.0.bn1.bias": "res2.0.conv1.norm.bias",
        "layer1.0.downsample.0.weight": "res2.0.shortcut.weight",
        "layer1.0.downsample.1.running_mean": "res2.0.shortcut.norm.running_mean",
    }.items():
        torch.testing.assert_close(state[ours], weights[theirs], msg=ours)
