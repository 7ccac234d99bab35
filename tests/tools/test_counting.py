"""What the tools count: operations, bytes and memory, of things that can be counted by hand."""

import pytest
import torch
from benchmarks.floors import counting, num_bytes, tensors_in
from benchmarks.measuring import interleaved, kept_for_backward, peak_growth, spread, times_as_fast
from benchmarks.modules import analyze
from benchmarks.our_model import as_batch
from benchmarks.parts import Watch, cut_off
from benchmarks.pictures import random_picture
from benchmarks.tables import told
from detectron2.modeling import build_model
from tiny_model import example, tiny_config
from torch import nn

from mask2former.layers.levels import describe_levels
from mask2former.layers.ms_deform_attn import MSDeformAttn

CPU = torch.device("cpu")


def operations(model, run):
    with counting(model) as counter:
        run()
    return counter.total


def test_operations_of_products_and_convolutions():
    model = nn.Conv2d(3, 8, kernel_size=3, padding=1)
    x, a = torch.rand(2, 3, 10, 12), torch.rand(5, 7)
    assert operations(model, lambda: model(x)) == 2 * (2 * 8 * 10 * 12) * (3 * 3 * 3)
    assert operations(model, lambda: a @ a.T) == 2 * 5 * 7 * 5
    assert operations(model, lambda: torch.zeros(5, 5).addmm_(a, a.T)) == 2 * 5 * 7 * 5
    assert operations(model, lambda: a + a) == 0


def test_operations_of_fused_attention():
    query, key = torch.rand(2, 4, 6, 8), torch.rand(2, 4, 9, 8)
    attend = torch.nn.functional.scaled_dot_product_attention
    products = 2 * (2 * 2 * 4 * 6 * 9 * 8)  # by the keys, then by the values
    assert operations(nn.Identity(), lambda: attend(query, key, key)) == products


@pytest.mark.parametrize("op", ["Reference", "Gather"])
def test_operations_of_deformable_attention(op):
    """Of four corners a sample and channel a product and a sum; twice of them in backward."""
    model = MSDeformAttn(dim=8, num_levels=2, num_heads=2, num_points=3, op_name=op)
    levels = describe_levels([(2, 3), (4, 5)], CPU)
    feature = torch.rand(2, 26, 8)
    places = torch.rand(26, 2)
    linear = 2 * 2 * 26 * 8 * (8 + 8 + 2 * 2 * 3 * 3)  # value, output, offsets and weights
    sampling = 2 * 26 * 2 * 2 * 3 * 4 * 2 * 4

    def run():
        return model(feature, places, feature, levels)

    with torch.no_grad():
        assert operations(model, run) == linear + sampling
    # Gradients of the weights, and of what stands before the output's projection.
    backward = linear + 2 * 2 * 26 * 8 * 8
    assert operations(model, lambda: run().sum().backward()) == linear + backward + 3 * sampling


def test_the_most_that_is_held():
    def run():
        a = torch.zeros(1000)
        b = torch.zeros(500)
        del a, b
        torch.zeros(700)

    assert peak_growth(run, CPU) == 1500 * 4
    assert peak_growth(lambda: None, CPU) == 0


def test_what_is_kept_for_backward():
    x = torch.rand(100, requires_grad=True)
    assert kept_for_backward(lambda: x * 2, [x]) == 0
    assert kept_for_backward(lambda: x * x, [x]) == 0  # an input
    assert kept_for_backward(lambda: x.exp(), [x]) == 0  # the output
    assert kept_for_backward(lambda: x.sin().sin().exp(), [x]) == 400
    assert kept_for_backward(lambda: x.exp().sin(), [x]) == 400  # by both, but there once


def test_all_have_their_turn_in_each_round():
    calls = []
    runs = {name: lambda name=name: calls.append(name) for name in "ab"}
    seconds = interleaved(runs, 2, CPU, "")
    assert calls == ["a", "b"] * 3
    assert {name: len(s) for name, s in seconds.items()} == {"a": 2, "b": 2}


def test_speeds_are_those_of_pairs():
    assert times_as_fast([1.0, 2.0, 4.0], [3.0, 4.0, 8.0]) == 2.0  # of 3, 2 and 2
    assert times_as_fast([1.0], None) is None
    assert spread([3.0, 1.0, 2.0], "ms") == {"median ms": 2000, "least ms": 1000, "most ms": 3000}


def test_numbers_are_told_in_three_digits():
    assert [told(x) for x in (0.0, 0.01234, 1.234, 12.34)] == ["0", "0.0123", "1.23", "12.3"]
    assert [told(x) for x in (1234.5, 2e-5, None, 7, "x")] == ["1234", "2.0e-05", "–", "7", "x"]


def test_tensors_are_found_once():
    x, y = torch.zeros(2, 3), torch.zeros(4, dtype=torch.uint8)
    assert num_bytes(tensors_in({"a": [x, (y, None)], "b": x, "c": "d"})) == 24 + 4


def test_what_is_cut_off_keeps_its_form():
    x = torch.rand(3, requires_grad=True) * 2
    cut = cut_off({"a": [x, (x, 1)], "b": torch.tensor(2)})
    assert cut["a"][0] is cut["a"][1][0] and cut["a"][0].is_leaf and cut["a"][0].requires_grad
    assert torch.equal(cut["a"][0], x) and not cut["b"].requires_grad


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_model(tiny_config())


def test_backward_by_parts_gives_the_same_gradients(model):
    batch = [example(0)]
    sum(model.train()(batch).values()).backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    watch = Watch(model, CPU)
    watch.backward(model(batch))
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-6, msg=name)


def test_the_parts_are_all_there_is(model):
    """Operations of the parts, one by one, are those of the whole."""
    batch = as_batch([random_picture((64, 96), 3, 5, seed=0)])
    with torch.no_grad():
        whole = operations(model.eval(), lambda: model(batch))
        watch = Watch(model, CPU)
        with counting(model) as watch.counter:
            model(batch)
    assert whole == sum(watch.operations.values()) > 1e8
    assert len(watch.seconds) == 4 and min(watch.seconds.values()) > 0


def test_modules_add_up(model):
    batch = as_batch([random_picture((64, 96), 3, 5, seed=0)])
    with torch.no_grad():
        whole = operations(model.eval(), lambda: model(batch))
    table = analyze(model, batch, depth=2, repeat=1)
    rows = {row["module"]: row for row in table.rows}
    total = rows.pop("total")
    assert list(table.rows[-1].values()) == list(total.values())
    assert total["GFLOP"] == whole / 1e9
    assert total["parameters M"] == sum(p.numel() for p in model.parameters()) / 1e6
    outer = ("backbone", "sem_seg_head")
    inner = ("sem_seg_head.pixel_decoder", "sem_seg_head.predictor")
    for column in ("parameters M", "GFLOP"):
        for names, whole in ((outer, total), (inner, rows["sem_seg_head"])):
            assert sum(rows[n][column] for n in names) == pytest.approx(whole[column], rel=0.1)
    kept = [rows[n]["kept for backward MB"] for n in (*outer, "criterion")]
    assert min(kept) > 0 and sum(kept) == pytest.approx(total["kept for backward MB"], rel=0.1)
