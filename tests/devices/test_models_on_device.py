"""Models on the simulated device compute what they compute on the CPU."""

import device_models
import pytest
import torch
from simulator import run


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Results of the parts of device_models, all from one process."""
    file = tmp_path_factory.mktemp("found") / "results.pt"
    run([device_models.__file__, file, *device_models.PARTS], env={"SDAA_SIM_RANDOM": "cpu"})
    return torch.load(file)


@pytest.fixture(autouse=True)
def one_thread():
    """As in the other process: sums of other parts round to other digits."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.mark.parametrize("name", device_models.MODELS)
def test_an_official_model_computes_the_same(found, name):
    expected = device_models.numbers(name, "cpu")
    for key in ("results", "losses", "state"):
        torch.testing.assert_close(found[name][key], expected[key], rtol=1e-4, atol=1e-4)
    # Sums round in another order; some gradients are zero but for that.
    scale = max(gradient[0] for gradient in expected["gradients"].values())
    torch.testing.assert_close(
        found[name]["gradients"], expected["gradients"], rtol=1e-3, atol=float(1e-5 * scale)
    )


def test_results_of_every_kind_are_the_same(found):
    for (tensors, segments), (expected, expected_segments) in zip(
        found["tasks"], device_models.tasks("cpu"), strict=True
    ):
        assert segments == expected_segments != []
        torch.testing.assert_close(tensors, expected, rtol=1e-4, atol=1e-5)


def test_sensitive_parts_are_in_float32_within_mixed_precision(found):
    device_models.check_precision(found["precision"])


def test_matching_takes_one_transfer_to_the_host(found):
    assert found["transfers"] == {"network": [], "criterion": ["_to_copy"]}


def test_inference_tries_again_when_memory_is_full(found):
    (usual, expected), *others = found["out_of_memory"]
    assert usual == "sdaa" and [device for device, _ in others] == ["sdaa", "cpu"]
    for _, result in others:
        torch.testing.assert_close(result, expected)


def test_computing_again_in_backward_changes_nothing(found):
    result = found["checkpointing"]
    assert not result["unequal"] and result["losses"] == result["again"]
