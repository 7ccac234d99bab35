"""Weights load from every format, run no code, fit the model, and are never half written."""

import os
import pickle
import socket
from urllib.error import URLError

import pytest
import torch
from torch import nn

from mask2former.engine.checkpoint import Checkpointer, misfit, write_atomically
from mask2former.engine.weight_files import read_weights


class Attack:
    """Pickled, it writes a file when it is loaded."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return exec, (f"open({self.path!r}, 'w').write('attacked')",)


class Model(nn.Module):
    def __init__(self, width=4, depth=1, num_classes=3):
        super().__init__()
        self.backbone = nn.ModuleDict(
            {f"res{i}": nn.Sequential(nn.Conv2d(3, width, 1)) for i in range(2, 2 + depth)}
        )
        self.sem_seg_head = nn.Linear(width, num_classes)


def save(data, path):
    if path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(data))
    else:
        torch.save(data, path)
    return str(path)


def same(model, state):
    return all(torch.equal(v, torch.as_tensor(state[k])) for k, v in model.state_dict().items())


@pytest.mark.parametrize("name", ["weights.pth", "weights.pkl"])
def test_planted_code_does_not_run(tmp_path, name):
    mark = tmp_path / "attacked"
    path = save({"model": {"a": torch.zeros(3), "b": Attack(mark)}}, tmp_path / name)
    with pytest.raises(ValueError, match=r"could run code") as error:
        Checkpointer(Model()).load(path)
    assert path in str(error.value) and "exec" in str(error.value)
    assert not mark.exists()
    # The same file attacks whoever loads it carelessly, so the test above could fail.
    pickle.loads(pickle.dumps(Attack(mark)))
    assert mark.exists()


@pytest.mark.parametrize("name", ["weights.pth", "weights.pkl"])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.9])
def test_truncated_file_is_one_sentence(tmp_path, name, part):
    path = tmp_path / name
    save({"model": {k: v.numpy() for k, v in Model().state_dict().items()}}, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(ValueError, match="truncated") as error:
        Checkpointer(Model()).load(str(path))
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_torchs_advice_to_load_without_care_is_not_passed_on(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_text("MODEL: {WEIGHTS: ''}")
    with pytest.raises(ValueError, match="truncated, or no file of weights") as error:
        Checkpointer(Model()).load(str(path))
    assert "weights_only" not in str(error.value)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"model": s, "iteration": 3}])
def test_state_dict_and_checkpoint_load(tmp_path, wrap):
    source, target = Model(), Model()
    Checkpointer(target).load(save(wrap(source.state_dict()), tmp_path / "weights.pth"))
    assert same(target, source.state_dict())


def test_model_zoo_pickles_load(tmp_path):
    source, target = Model(), Model()
    arrays = {k: v.numpy() for k, v in source.state_dict().items()}
    zoo = {"model": arrays, "__author__": "somebody"}
    Checkpointer(target).load(save(zoo, tmp_path / "zoo.pkl"))
    assert same(target, arrays)


def test_bare_backbone_of_tensors_in_a_pickle_loads(tmp_path):
    """As the official script converts Swin's weights."""
    source, target = Model(), Model()
    bare = source.backbone.state_dict()
    zoo = {"model": bare, "__author__": "third_party", "matching_heuristics": True}
    Checkpointer(target).load(save(zoo, tmp_path / "swin.pkl"))
    assert torch.equal(target.backbone["res2"][0].weight, source.backbone["res2"][0].weight)


def test_torchvision_names_become_detectron2s(tmp_path):
    weights = {
        "conv1.weight": torch.zeros(1),
        "bn1.running_mean": torch.zeros(1),
        "layer1.0.conv1.weight": torch.zeros(1),
        "bn1.weight": torch.zeros(1),
        "layer2.0.bn3.bias": torch.zeros(1),
        "layer4.0.downsample.0.weight": torch.zeros(1),
        "layer4.0.downsample.1.bias": torch.zeros(1),
    }
    data = read_weights(save(weights, tmp_path / "resnet50.pth"))
    assert data["matching_heuristics"]
    assert set(data["model"]) == {
        "stem.conv1.weight",
        "stem.conv1.norm.running_mean",
        "stem.conv1.norm.weight",
        "res2.0.conv1.weight",
        "res3.0.conv3.norm.bias",
        "res5.0.shortcut.weight",
        "res5.0.shortcut.norm.bias",
    }


def test_matching_heuristics_as_a_query(tmp_path):
    source, target = Model(), Model()
    path = save(source.backbone.state_dict(), tmp_path / "backbone.pth")
    Checkpointer(target).load(path + "?matching_heuristics=True")
    assert torch.equal(target.backbone["res2"][0].bias, source.backbone["res2"][0].bias)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.pth: no such weight file"):
        Checkpointer(Model()).load(str(tmp_path / "nothing.pth"))


def test_training_may_start_from_another_head(tmp_path):
    source, target = Model(num_classes=5), Model(num_classes=3)
    Checkpointer(target).load(save(source.state_dict(), tmp_path / "weights.pth"))
    assert torch.equal(target.backbone["res2"][0].weight, source.backbone["res2"][0].weight)


@pytest.mark.parametrize("source", [Model(width=8), Model(depth=3)], ids=["wider", "deeper"])
def test_training_does_not_start_from_another_backbone(tmp_path, source):
    path = save(source.state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="another architecture") as error:
        Checkpointer(Model()).load(path)
    assert path in str(error.value)


def test_evaluation_needs_all_weights(tmp_path):
    source, target = Model(num_classes=5), Model(num_classes=3)
    path = save(source.state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="2 of another shape") as error:
        Checkpointer(target, must_fit=True).load(path)
    assert "sem_seg_head.weight (5, 4) instead of (3, 4)" in str(error.value)


def test_evaluation_needs_weights_at_all():
    with pytest.raises(ValueError, match=r"MODEL\.WEIGHTS is empty"):
        Checkpointer(Model(), must_fit=True).load("")


def test_misfit_counts_and_gives_examples():
    keys = {f"backbone.{i}" for i in range(10)}
    found = misfit(
        keys,
        missing=["backbone.0", "backbone.1", "backbone.2", "backbone.3"],
        unexpected=["stages.0"],
        wrong_shapes=[("backbone.4", (2,), (3,))],
        must_fit=True,
    )
    assert "10 keys" in found
    assert "4 missing (backbone.0, backbone.1, backbone.2, ...)" in found
    assert "1 unexpected (stages.0)" in found
    assert "1 of another shape (backbone.4 (2,) instead of (3,))" in found


def test_nothing_that_fits_is_an_error(tmp_path):
    path = save({"encoder.weight": torch.zeros(2)}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="another architecture"):
        Checkpointer(Model()).load(path)


def test_save_and_resume(tmp_path):
    source, target = Model(), Model()
    writer = Checkpointer(source, str(tmp_path))
    writer.save("model_0000009", iteration=9)
    reader = Checkpointer(target, str(tmp_path))
    rest = reader.resume_or_load("unused.pth", resume=True)
    assert same(target, source.state_dict()) and rest["iteration"] == 9
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model_0000009.pth"]


@pytest.mark.parametrize("named", ["", "gone.pth"])
def test_resuming_from_a_checkpoint_that_is_not_there(tmp_path, named):
    (tmp_path / "last_checkpoint").write_text(named)
    with pytest.raises(FileNotFoundError, match="write the name of one into it") as error:
        Checkpointer(Model(), str(tmp_path)).resume_or_load("", resume=True)
    assert str(error.value).startswith(str(tmp_path / "last_checkpoint"))


def test_resuming_from_a_truncated_checkpoint_tells_the_way_back(tmp_path):
    Checkpointer(Model(), str(tmp_path)).save("model_0000009")
    os.truncate(tmp_path / "model_0000009.pth", 100)
    with pytest.raises(ValueError, match="truncated") as error:
        Checkpointer(Model(), str(tmp_path)).resume_or_load("", resume=True)
    pointer = tmp_path / "last_checkpoint"
    assert str(error.value).endswith(f"or name an earlier checkpoint in {pointer}")


@pytest.mark.parametrize("wrapped", [False, True], ids=["real", "embedded"])
def test_failed_download_is_one_sentence_soon(monkeypatch, wrapped):
    """Both detectron2s: the real one lets urllib's error through, the embedded one explains it."""
    checkpointer = Checkpointer(Model())
    timeouts = []

    def get_local_path(url):
        timeouts.append(socket.getdefaulttimeout())
        failure = URLError("no network")
        if wrapped:
            raise FileNotFoundError(f"{url}: cannot be downloaded (...); ...") from failure
        raise failure

    monkeypatch.setattr(checkpointer.path_manager, "get_local_path", get_local_path)
    with pytest.raises(FileNotFoundError) as error:
        checkpointer.load("detectron2://R-50.pkl")
    sentence = str(error.value)
    assert sentence.startswith("detectron2://R-50.pkl: cannot be downloaded (no network); ")
    assert sentence.count("cannot be downloaded") == 1 and "MODEL.WEIGHTS" in sentence
    assert timeouts[0] <= 10 and socket.getdefaulttimeout() is None


def test_an_interrupted_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(b"old")

    def fail_half_way(file):
        file.write(b"ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(str(path), fail_half_way)
    assert path.read_bytes() == b"old"
