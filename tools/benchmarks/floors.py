"""What this machine can do at best, and how much there is to do: operations and bytes."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from mask2former import device as devices
from mask2former.layers.ms_deform_attn import MSDeformAttn

WARM_UP_S = 0.05  # so long should one measurement take at least
MAX_SIDE = 8192  # of the matrices
NUM_BYTES = 2**28  # of what is copied
NUM_TRIES = 5

# torch's, which do not know what is done in place.
FORMULAS = flop_registry | {
    getattr(torch.ops.aten, f"{name}_"): flop_registry[getattr(torch.ops.aten, name)]
    for name in ("addmm", "baddbmm")
}


def best_seconds(function: Callable[[], Any], device: torch.device) -> float:
    """The least time of some tries: a ceiling is what the machine can do when left alone."""
    seconds = []
    for _ in range(NUM_TRIES):
        devices.synchronize(device)
        start = time.perf_counter()
        function()
        devices.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def matmul_gflops(device: torch.device, dtype: torch.dtype) -> float:
    """GFLOP/s of a product of large square matrices."""
    side = 512
    while True:
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        seconds = best_seconds(lambda a=a, b=b: a @ b, device)
        if seconds > WARM_UP_S or side >= MAX_SIDE:
            return 2 * side**3 / seconds / 1e9
        side *= 2


def copy_gb_per_s(device: torch.device) -> float:
    """GB/s of a large copy; what is read and what is written count."""
    source = torch.zeros(NUM_BYTES, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    return 2 * NUM_BYTES / best_seconds(lambda: target.copy_(source), device) / 1e9


class Counter(TorchDispatchMode):
    """Floating-point operations so far: a product and a sum are two.

    Counted are matrix products and convolutions, as torch's FlopCounterMode does, but without its
    look at modules. Those of deformable attention are counted by its definition, whatever the op
    does: four corners of each sample, and in backward twice as many operations, for the values and
    for the weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        formula = FORMULAS.get(function._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result

    def see(self, attention: MSDeformAttn, inputs: tuple, output: Tensor) -> None:
        num_samples = output.shape[:-1].numel() * attention.num_levels * attention.num_points
        operations = num_samples * 4 * 2 * output.shape[-1]
        self.total += operations
        if output.requires_grad:
            output.register_hook(lambda _: self.see_backward(2 * operations))

    def see_backward(self, operations: int) -> None:
        self.total += operations


@contextmanager
def counting(model: nn.Module) -> Iterator[Counter]:
    """Counts what the model does in this block."""
    counter = Counter()
    attentions = [m for m in model.modules() if isinstance(m, MSDeformAttn)]
    handles = [m.register_forward_hook(counter.see) for m in attentions]
    try:
        # torch counts matrix products, but not all of the fused attentions.
        with sdpa_kernel(SDPBackend.MATH), counter:
            yield counter
    finally:
        for handle in handles:
            handle.remove()


def tensors_in(value: Any) -> list[Tensor]:
    """Those in nested containers, each once."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return []
    return list({id(t): t for v in value for t in tensors_in(v)}.values())


def num_bytes(tensors: list[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)
