"""MODEL.COMPILE: the same numbers, and one program for images of many sizes."""

import copy

import pytest
import torch
from detectron2.modeling import build_model
from tiny_model import example, tiny_config
from torch._dynamo.testing import CompileCounter

from mask2former.config import load_config, validate_config
from mask2former.layers.compiling import check_compiler, compile_parts
from mask2former.patch import build_model as patched

# Sides that do not happen to be a number of channels, which a program would take for granted.
SIZES = ((288, 352), (352, 288), (320, 480))
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def build(*overrides):
    torch.manual_seed(0)
    small = (
        *("MODEL.MASK_FORMER.DEC_LAYERS", 2),
        *("MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS", 1),
        *("MODEL.SEM_SEG_HEAD.MS_DEFORM_ATTN", "Reference"),
    )
    return build_model(tiny_config(*small, *overrides))


@pytest.fixture
def compiled():
    """A model, the same one compiled, and what counts its programs."""
    torch._dynamo.reset()
    model, counter = build(), CompileCounter()
    twin = copy.deepcopy(model)
    compile_parts((twin.backbone, twin.sem_seg_head), counter)
    yield model, twin, counter
    torch._dynamo.reset()


def test_inference_on_images_of_any_size_is_two_programs(compiled):
    model, twin, counter = compiled
    model.eval()
    twin.eval()
    for seed, (height, width) in enumerate(SIZES):
        batch = [example(seed, height=height, width=width)]
        with torch.no_grad():
            found, expected = (m.predict(batch)[0] for m in (twin, model))
        torch.testing.assert_close(found.mask_logits, expected.mask_logits, **CLOSE)
        torch.testing.assert_close(found.class_logits, expected.class_logits, **CLOSE)
        assert counter.frame_count == 2  # backbone and head, each without a break
    assert list(twin.state_dict()) == list(model.state_dict())


def test_training_in_mixed_precision_is_two_programs(compiled):
    model, twin, counter = compiled
    for seed, (height, width) in enumerate(SIZES[:2]):
        batch = [example(seed, height=height, width=width)]
        losses = []
        for each in (model, twin):
            each.train().zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                losses.append(sum(each(batch).values()))
            losses[-1].backward()
        torch.testing.assert_close(*losses)
        assert counter.frame_count == 2
    found, expected = (torch.cat([p.grad.flatten() for p in m.parameters()]) for m in (twin, model))
    assert (found - expected).norm() < 0.02 * expected.norm()  # bfloat16 has 8 bits


def test_the_key_compiles_backbone_and_head(monkeypatch):
    checked = []
    monkeypatch.setattr(patched, "check_compiler", checked.append)
    model = build("MODEL.COMPILE", True)
    assert checked == [torch.device("cpu")]
    parts = (model.backbone, model.sem_seg_head, model.criterion)
    assert [part._compiled_call_impl is not None for part in parts] == [True, True, False]
    assert build().backbone._compiled_call_impl is None


def test_a_compiler_that_is_missing_is_one_sentence(monkeypatch):
    def no_compiler(x):
        raise RuntimeError("\nNo working C++ compiler found\nin a long list of places")

    monkeypatch.setattr(torch, "compile", lambda *args, **kwargs: no_compiler)
    with pytest.raises(ValueError, match=r"MODEL\.COMPILE=True, but .* cpu .*C\+\+.*to False") as e:
        check_compiler(torch.device("cpu"))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["MODEL.RESNETS.USE_CHECKPOINT", "True"], r"MODEL\.RESNETS\.USE_CHECKPOINT=True do not"),
        (["MODEL.META_ARCHITECTURE", "RetinaNet"], r"not MODEL\.META_ARCHITECTURE=RetinaNet"),
    ],
)
def test_what_cannot_be_compiled_is_one_sentence(words, sentence, monkeypatch):
    monkeypatch.setattr("mask2former.config.validation._check_parts", lambda model: None)
    monkeypatch.setattr("mask2former.config.validation._check_datasets", lambda *args, **kw: None)
    cfg = load_config("quick_start.yaml", ["MODEL.DEVICE", "cpu", "MODEL.COMPILE", "True", *words])
    with pytest.raises(ValueError, match=rf"MODEL\.COMPILE=True.*{sentence}"):
        validate_config(cfg)
