"""TEST.AMP: inference in half precision, in which the pixel decoder too takes part."""

import pytest
import torch
from detectron2.modeling import build_model
from tiny_model import example, tiny_config
from torch import nn

from mask2former.config import load_config, validate_config
from mask2former.device import amp_dtype

HALF = ("TEST.AMP.ENABLED", True)
BF16 = torch.bfloat16


def build(*overrides):
    torch.manual_seed(0)
    return build_model(tiny_config("MODEL.MASK_FORMER.DEC_LAYERS", 2, *overrides)).eval()


def types_of(model, run):
    """What the linear layers and convolutions of the pixel decoder compute in."""
    found = set()
    hooks = [
        m.register_forward_hook(lambda _, __, output: found.add(output.dtype))
        for m in model.sem_seg_head.pixel_decoder.modules()
        if isinstance(m, nn.Linear | nn.Conv2d)
    ]
    with torch.no_grad():
        result = run()
    for hook in hooks:
        hook.remove()
    return found, result


def test_switched_off_the_pixel_decoder_stays_in_full_precision():
    model = build()
    with torch.autocast("cpu", dtype=BF16):
        types, _ = types_of(model, lambda: model([example(0)]))
    assert types == {torch.float32}
    types, (result,) = types_of(model, lambda: model([example(0)]))
    assert types == {torch.float32} and result["sem_seg"].dtype == torch.float32


def test_switched_on_all_of_the_network_is_in_half_precision():
    model = build(*HALF)
    types, prediction = types_of(model, lambda: model.predict([example(0)])[0])
    assert types == {BF16}
    assert prediction.mask_logits.dtype == prediction.class_logits.dtype == BF16
    with torch.no_grad():
        (result,) = model([example(0)])
    assert result["sem_seg"].dtype == torch.float32 and result["sem_seg"].isfinite().all()
    assert not torch.is_autocast_enabled("cpu")


def test_training_is_as_without_it():
    losses = []
    for overrides in ((), HALF):
        model = build(*overrides).train()
        with torch.autocast("cpu", dtype=BF16):
            types, values = types_of(model, lambda model=model: model([example(0)]))
        assert types == {torch.float32}
        losses.append(values)
    assert losses[0] == losses[1]


def test_labels_are_those_of_full_precision():
    """A model that has learnt a little, on what it has learnt."""
    model = build(*HALF, "MODEL.RESNETS.NORM", "BN").train()
    batch = [example(seed, height=96, width=128) for seed in range(2)]
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    for _ in range(30):
        optimizer.zero_grad()
        sum(model(batch).values()).backward()
        optimizer.step()
    labels = []
    for precision in ("full", "auto"):
        model.eval().inference_precision = precision
        with torch.no_grad():
            labels.append(torch.stack([r["sem_seg"].argmax(0) for r in model(batch)]))
    assert len(labels[0].unique()) > 1
    assert (labels[0] == labels[1]).float().mean() >= 0.995


def test_types_that_a_device_has_not_are_one_sentence():
    with pytest.raises(ValueError, match=r"TEST\.AMP\.DTYPE='float16'; cpu has auto, bfloat16"):
        amp_dtype("cpu", "float16", "TEST.AMP")
    words = ["MODEL.DEVICE", "cpu", "TEST.AMP.ENABLED", "True", "TEST.AMP.DTYPE", "float16"]
    cfg = load_config("quick_start.yaml", words)
    with pytest.raises(ValueError, match=r"TEST\.AMP\.DTYPE='float16'"):
        validate_config(cfg, eval_only=True)


def test_architectures_that_do_not_know_it_are_one_sentence(monkeypatch):
    monkeypatch.setattr("mask2former.config.validation._check_datasets", lambda *args, **kw: None)
    words = ["MODEL.DEVICE", "cpu", "TEST.AMP.ENABLED", "True"]
    baseline = "maskformer/ade20k-150/per_pixel_baseline_R50_bs16_160k.yaml"
    with pytest.raises(ValueError, match=r"TEST\.AMP\.ENABLED=True, but only MaskFormer"):
        validate_config(load_config(baseline, words), eval_only=True)
