"""The device's backend of torch.distributed: gloo, on the CPU's views of the device's memory.

It takes the device's tensors only, as a device's backend does, and only after set_device.
"""

from collections.abc import Callable, Iterator
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from simulated_device import runtime, settings

_Tensors = Tensor | list["_Tensors"]


def register(backend: str) -> None:
    """Make `backend` the one of the device's tensors in torch.distributed."""

    def create(store: dist.Store, rank: int, size: int, timeout: timedelta) -> "DeviceProcessGroup":
        settings.log(
            "init_process_group",
            rank=rank,
            size=size,
            was_set=runtime.was_set,
            device=runtime.current_device(),
        )
        if not runtime.was_set:
            raise RuntimeError(
                f"{backend}: call torch.{settings.name()}.set_device before init_process_group"
            )
        return DeviceProcessGroup(backend, store, rank, size, timeout)

    dist.Backend.register_backend(backend, create, devices=[settings.name()])


def _flat(tensors: _Tensors) -> Iterator[Tensor]:
    if isinstance(tensors, Tensor):
        yield tensors
    else:
        for part in tensors:
            yield from _flat(part)


def _done(result: object) -> dist.Work:
    future = torch.futures.Future()
    future.set_result(result)
    return torch._C._distributed_c10d._create_work_from_future(future)


class DeviceProcessGroup(dist.ProcessGroup):
    """Every operation has ended when it returns, so that its Work is always done."""

    def __init__(
        self, backend: str, store: dist.Store, rank: int, size: int, timeout: timedelta
    ) -> None:
        super().__init__(rank, size)
        self._backend = backend
        self._ranks = rank, size
        self._gloo = dist.ProcessGroupGloo(store, rank, size, timeout)
        # It tells torch the group's device types, and keeps its name.
        kind = dist.ProcessGroup.BackendType.CUSTOM
        if hasattr(self, "_set_default_backend"):  # torch 2.4 has it not, and needs it not
            self._set_default_backend(kind)
        self._register_backend(torch.device(settings.name()), kind, self._gloo)

    def getBackendName(self) -> str:
        return self._backend

    def rank(self) -> int:
        return self._ranks[0]

    def size(self) -> int:
        return self._ranks[1]

    @property
    def supports_coalescing(self) -> bool:
        return False

    def _on_host(self, tensors: _Tensors) -> _Tensors:
        """The same memory on the CPU, as gloo wants it; RuntimeError if it is not the device's."""
        if not isinstance(tensors, Tensor):
            return [self._on_host(part) for part in tensors]
        if tensors.device.type != settings.name():
            raise RuntimeError(
                f"No backend type associated with device type {tensors.device.type}: "
                f"{self._backend} takes tensors on {settings.name()}"
            )
        if tensors.device.index != runtime.current_device():
            raise RuntimeError(
                f"{self._backend}: a tensor on {tensors.device} in a process whose device is "
                f"{settings.name()}:{runtime.current_device()}"
            )
        if not tensors.is_contiguous():
            raise RuntimeError("Tensors must be contiguous")
        host = torch.ops.device_sim.host_view(tensors.detach())
        return host.view(torch.uint8) if host.dtype == torch.bool else host

    def _run(self, result: _Tensors, call: Callable, *tensors: _Tensors) -> dist.Work:
        """Call gloo with `tensors` on the CPU; the Work's result is `result`."""
        with torch.no_grad():
            call(*(self._on_host(part) for part in tensors)).wait()
        return _done(list(_flat(result)))

    # One tensor of each rank

    def allreduce(self, tensors: list[Tensor], opts: object = None) -> dist.Work:
        with torch.no_grad():
            for tensor in tensors:
                self._reduce(tensor, opts.reduceOp if opts else dist.ReduceOp.SUM)
        return _done(tensors)

    def allreduce_coalesced(self, tensors: list[Tensor], opts: object = None) -> dist.Work:
        return self.allreduce(tensors, opts)

    def _reduce(self, tensor: Tensor, operation: object) -> None:
        """In place. In float32 for the types that gloo lacks, and a mean as a sum divided."""
        host = self._on_host(tensor)
        wide = host.float() if host.dtype in (torch.float16, torch.bfloat16) else host
        options = dist.AllreduceOptions()
        is_mean = operation == dist.ReduceOp.AVG
        options.reduceOp = dist.ReduceOp.SUM if is_mean else operation
        self._gloo.allreduce([wide], options).wait()
        if is_mean:
            wide.div_(self.size())
        if wide is not host:
            host.copy_(wide)

    def reduce(self, tensors: list[Tensor], opts: object) -> dist.Work:
        for tensor in tensors:
            reduced = tensor.detach().clone()
            self._reduce(reduced, opts.reduceOp)
            if self.rank() == opts.rootRank:
                tensor.detach().copy_(reduced)
        return _done(tensors)

    def broadcast(self, tensors: list[Tensor], opts: object = None) -> dist.Work:
        opts = opts or dist.BroadcastOptions()
        return self._run(tensors, lambda t: self._gloo.broadcast(t, opts), tensors)

    def barrier(self, opts: object = None) -> dist.Work:
        settings.log("barrier", device_ids=list(getattr(opts, "device_ids", None) or []))
        self._gloo.barrier().wait()
        return _done([])

    # Gathering

    def allgather(
        self, outputs: list[list[Tensor]], inputs: list[Tensor], opts: object = None
    ) -> dist.Work:
        return self._run(
            outputs, lambda out, into: self._gloo.allgather(out, into), outputs, inputs
        )

    def all_gather_single(self, output: Tensor, input: Tensor, opts: object = None) -> dist.Work:
        parts = list(output.detach().view(self.size(), *input.shape).unbind())
        self.allgather([parts], [input])
        return _done([output])

    def all_gather_single_coalesced(
        self, outputs: list[Tensor], inputs: list[Tensor], opts: object = None
    ) -> dist.Work:
        for output, tensor in zip(outputs, inputs):
            self.all_gather_single(output, tensor)
        return _done(outputs)

    def allgather_coalesced(
        self, outputs: list[list[Tensor]], inputs: list[Tensor], opts: object = None
    ) -> dist.Work:
        for output, tensor in zip(zip(*outputs), inputs):
            self.allgather([list(output)], [tensor])
        return _done(list(_flat(outputs)))

    def gather(self, outputs: list[list[Tensor]], inputs: list[Tensor], opts: object) -> dist.Work:
        return self._run(
            outputs, lambda out, into: self._gloo.gather(out, into, opts), outputs, inputs
        )

    # Scattering

    def scatter(self, outputs: list[Tensor], inputs: list[list[Tensor]], opts: object) -> dist.Work:
        return self._run(
            outputs, lambda out, into: self._gloo.scatter(out, into, opts), outputs, inputs
        )

    def reduce_scatter(
        self, outputs: list[Tensor], inputs: list[list[Tensor]], opts: object = None
    ) -> dist.Work:
        operation = opts.reduceOp if opts else dist.ReduceOp.SUM
        for output, parts in zip(outputs, inputs):
            reduced = [part.detach().clone() for part in parts]
            for part in reduced:
                self._reduce(part, operation)
            output.detach().copy_(reduced[self.rank()])
        return _done(outputs)

    def reduce_scatter_single(self, output: Tensor, input: Tensor, opts: object) -> dist.Work:
        parts = list(input.detach().view(self.size(), *output.shape).unbind())
        return self.reduce_scatter([output], [parts], opts)

    def reduce_scatter_single_coalesced(
        self, outputs: list[Tensor], inputs: list[Tensor], opts: object
    ) -> dist.Work:
        for output, tensor in zip(outputs, inputs):
            self.reduce_scatter_single(output, tensor, opts)
        return _done(outputs)

    # From each to each

    def alltoall(
        self, outputs: list[Tensor], inputs: list[Tensor], opts: object = None
    ) -> dist.Work:
        self._on_host([outputs, inputs])
        rank, size = self._ranks
        for shift in range(size):
            to, source = (rank + shift) % size, (rank - shift) % size
            if to == rank:
                outputs[rank].detach().copy_(inputs[rank])
            else:
                sent = self._gloo.send([self._on_host(inputs[to])], to, shift)
                self._gloo.recv([self._on_host(outputs[source])], source, shift).wait()
                sent.wait()
        return _done(outputs)

    def all_to_all_single(
        self,
        output: Tensor,
        input: Tensor,
        output_sizes: list[int],
        input_sizes: list[int],
        opts: object = None,
    ) -> dist.Work:
        def parts(tensor: Tensor, sizes: list[int]) -> list[Tensor]:
            return list(tensor.detach().split(sizes or len(tensor) // self.size()))

        self.alltoall(parts(output, output_sizes), parts(input, input_sizes))
        return _done([output])

    # From one to one

    def send(self, tensors: list[Tensor], rank: int, tag: int) -> dist.Work:
        return self._run(tensors, lambda t: self._gloo.send(t, rank, tag), tensors)

    def recv(self, tensors: list[Tensor], rank: int, tag: int) -> dist.Work:
        return self._run(tensors, lambda t: self._gloo.recv(t, rank, tag), tensors)

    def recv_anysource(self, tensors: list[Tensor], tag: int) -> dist.Work:
        return self._run(tensors, lambda t: self._gloo.recv_anysource(t, tag), tensors)

    # The names that these have in older versions of torch

    _allgather_base = all_gather_single
    allgather_into_tensor_coalesced = all_gather_single_coalesced
    _reduce_scatter_base = reduce_scatter_single
    reduce_scatter_tensor_coalesced = reduce_scatter_single_coalesced
    alltoall_base = all_to_all_single
