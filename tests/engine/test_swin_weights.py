"""Swin's weights load as its authors publish them, converted or not, for other windows as well."""

import logging
import pickle
import runpy
import sys
from pathlib import Path

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_backbone
from tiny_model import tiny_config
from torch import nn

from mask2former.engine.checkpoint import Checkpointer

TOOLS = Path(__file__).parents[2] / "tools"
TABLE = "layers.1.blocks.0.attn.relative_position_bias_table"
INDEX = "layers.1.blocks.0.attn.relative_position_index"


class Model(nn.Module):
    def __init__(self, seed, **keys):
        super().__init__()
        torch.manual_seed(seed)
        cfg = tiny_config("MODEL.BACKBONE.NAME", "D2SwinTransformer")
        small = {"EMBED_DIM": 16, "DEPTHS": [2, 2, 2, 2], "NUM_HEADS": [1, 2, 4, 4]}
        for key, value in (small | {"WINDOW_SIZE": 4} | keys).items():
            cfg.MODEL.SWIN[key] = value
        self.backbone = build_backbone(cfg)
        self.norm = nn.LayerNorm(128)  # of the same shape as the classifier's


@pytest.fixture(scope="module")
def published():
    """A state_dict with the names and shapes of the authors' files."""
    weights = {k: v for k, v in Model(0).backbone.state_dict().items() if k[:4] != "norm"}
    classifier = {"weight": torch.randn(1000, 128), "bias": torch.randn(1000)}
    weights |= {f"head.{k}": v for k, v in classifier.items()}
    weights |= {"norm.weight": torch.full((128,), 5.0), "norm.bias": torch.full((128,), 5.0)}
    return weights | {"layers.0.blocks.1.attn_mask": torch.zeros(4, 16, 16)}


@pytest.fixture
def sentences(caplog):
    caplog.set_level(logging.WARNING, "fvcore")
    logging.getLogger("fvcore").propagate = True
    return lambda: [r.args[1] for r in caplog.records if r.name.startswith("fvcore")]


def assert_taken(model, weights, but=()):
    state = model.backbone.state_dict()
    names = [k for k in weights if not k.startswith(("head.", "norm.")) and "attn_mask" not in k]
    assert set(state) - set(names) == {f"norm{i}.{p}" for i in range(4) for p in ("weight", "bias")}
    for name in names:
        if not name.endswith(but):
            assert torch.equal(state[name], weights[name]), name
    assert (model.norm.weight == 1).all()  # the classifier's norm is nobody's


NEW_NORMS = "backbone.norm0 (2 keys), backbone.norm1 (2 keys), backbone.norm2 (2 keys), " + (
    "backbone.norm3 (2 keys), norm (2 keys)"
)


def test_the_authors_file(published, tmp_path, sentences):
    path = tmp_path / "swin_tiny_patch4_window7_224.pth"
    torch.save({"model": published}, path)
    model = Model(1)
    Checkpointer(model).load(str(path))
    assert_taken(model, published)
    (sentence,) = sentences()
    assert sentence == f"not in the file, starts anew: {NEW_NORMS}"


def test_the_file_of_the_official_script(published, tmp_path):
    path = tmp_path / "swin_tiny_patch4_window7_224.pkl"
    zoo = {"model": published, "__author__": "third_party", "matching_heuristics": True}
    path.write_bytes(pickle.dumps(zoo))
    model = Model(1)
    Checkpointer(model).load(str(path))
    assert_taken(model, published)


def convert(monkeypatch, script, source, target):
    monkeypatch.setattr(sys, "argv", [script, str(source), str(target)])
    runpy.run_path(str(TOOLS / script), run_name="__main__")


def test_our_script_writes_what_detectron2_loads(published, tmp_path, monkeypatch, capsys):
    source, target = tmp_path / "swin.pth", tmp_path / "swin.pkl"
    torch.save({"model": published}, source)
    convert(monkeypatch, "convert-pretrained-swin-model-to-d2.py", source, target)
    assert capsys.readouterr().out == f"{target} is written; set MODEL.WEIGHTS to it\n"
    for checkpointer in (Checkpointer, DetectionCheckpointer):
        model = Model(1)
        checkpointer(model).load(str(target))
        assert_taken(model, published)


def test_resnets_are_converted_too(tmp_path, monkeypatch):
    source, target = tmp_path / "r18.pth", tmp_path / "R-18.pkl"
    names = {"conv1.weight": "stem.conv1.weight", "bn1.weight": "stem.conv1.norm.weight"}
    names["layer1.0.conv1.weight"] = "res2.0.conv1.weight"
    weights = {name: torch.randn(3) for name in names}
    torch.save(weights, source)
    convert(monkeypatch, "convert-torchvision-to-d2.py", source, target)
    zoo = pickle.loads(target.read_bytes())
    assert zoo["matching_heuristics"] is True and zoo["__author__"] == "torchvision"
    assert {k: v.tolist() for k, v in zoo["model"].items()} == {
        new: weights[old].tolist() for old, new in names.items()
    }


@pytest.mark.parametrize(
    "source, target, sentence",
    [
        ("swin.pth", "R-50.pkl", "its names are not those of torchvision's backbones"),
        ("swin.pth", "R-50.pth", "name it"),
        ("nothing.pth", "R-50.pkl", "No such file"),
    ],
)
def test_what_cannot_be_converted(published, tmp_path, monkeypatch, source, target, sentence):
    torch.save({"model": published}, tmp_path / "swin.pth")
    with pytest.raises(SystemExit, match=f"error: .*{sentence}"):
        convert(monkeypatch, "convert-torchvision-to-d2.py", tmp_path / source, tmp_path / target)
    assert not (tmp_path / target).exists()


@pytest.mark.parametrize("window", [2, 6])
def test_other_windows_interpolate_the_tables(published, tmp_path, sentences, window):
    """A bias that is linear in the offset stays so, in the finer or coarser steps."""
    weights = dict(published)
    offset = torch.arange(-3.0, 4)  # of windows of 4
    slope = torch.tensor([0.5, -1.0])  # of each head
    weights[TABLE] = ((offset[:, None] + 2 * offset)[..., None] * slope).flatten(0, 1)
    torch.save({"model": weights}, tmp_path / "swin.pth")
    model = Model(1, WINDOW_SIZE=window)
    fresh = model.backbone.state_dict()[INDEX].clone()
    Checkpointer(model).load(str(tmp_path / "swin.pth"))
    assert_taken(model, weights, but=("relative_position_bias_table", "relative_position_index"))
    state = model.backbone.state_dict()
    assert torch.equal(state[INDEX], fresh)
    side = 2 * window - 1
    offset = torch.arange(side) - (window - 1.0)
    grid = (offset[:, None] + 2 * offset)[..., None] * slope * 7 / side
    inner = slice(side // 3, side - side // 3)  # bicubic bends at the border
    found = state[TABLE].view(side, side, 2)
    torch.testing.assert_close(found[inner, inner], grid[inner, inner], atol=0.2, rtol=0)
    assert found[window - 1, window - 1].abs().max() < 1e-5  # of a token to itself
    sizes = f"windows of 4 in the file, windows of {window} in the model"
    assert f"relative_position_bias_table: {sizes}: interpolated (8 times)" in sentences()


def test_positions_are_interpolated(tmp_path, sentences):
    source, target = Model(0, APE=True, PRETRAIN_IMG_SIZE=32), Model(1, APE=True)
    with torch.no_grad():
        source.backbone.absolute_pos_embed[:] = torch.arange(16.0).view(1, 16, 1, 1)
    torch.save(source.backbone.state_dict(), tmp_path / "swin.pth")
    Checkpointer(target).load(str(tmp_path / "swin.pth"))
    expected = torch.arange(16.0).view(1, 16, 1, 1).expand(1, 16, 56, 56)
    torch.testing.assert_close(target.backbone.absolute_pos_embed.detach(), expected)
    said = "absolute_pos_embed: 8 x 8 in the file, 56 x 56 in the model: interpolated"
    assert said in sentences()


def test_another_number_of_heads_is_not_interpolated(published, tmp_path, sentences):
    torch.save({"model": published}, tmp_path / "swin.pth")
    model = Model(1, NUM_HEADS=[1, 4, 4, 4])
    own = model.backbone.state_dict()[TABLE].clone()
    Checkpointer(model).load(str(tmp_path / "swin.pth"))
    assert torch.equal(model.backbone.state_dict()[TABLE], own)
    assert any(TABLE.rpartition(".")[2] in sentence for sentence in sentences())


def test_evaluation_does_not_interpolate(tmp_path):
    Checkpointer(Model(0), str(tmp_path)).save("trained")
    model = Model(1, WINDOW_SIZE=6)
    with pytest.raises(ValueError, match=r"set MODEL\.SWIN\.WINDOW_SIZE=4, or use other weights"):
        Checkpointer(model, must_fit=True).load(str(tmp_path / "trained.pth"))


def test_a_smaller_swin_is_refused(published, tmp_path):
    torch.save({"model": published}, tmp_path / "swin.pth")
    with pytest.raises(ValueError, match="another architecture") as error:
        Checkpointer(Model(1, EMBED_DIM=32)).load(str(tmp_path / "swin.pth"))
    assert "\n" not in str(error.value)
