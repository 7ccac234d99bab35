"""A loop over iterations with hooks around it, and what one iteration of training does.

before_train
for each iteration: before_step, run_step (in which after_backward), after_step
after_train, also when an iteration failed
"""

import logging
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import nn

from detectron2.utils import _accelerator, comm
from detectron2.utils.events import EventStorage, get_event_storage

logger = logging.getLogger(__name__)


class HookBase:
    """Work around the iterations of a trainer; each method does nothing unless overridden.

    A hook with state defines `load_state_dict` beside `state_dict`.
    """

    trainer: "TrainerBase" = None  # a weak proxy, from `register_hooks` on

    def before_train(self) -> None:
        """Before the first iteration."""

    def after_train(self) -> None:
        """After the last iteration, or after the one that failed."""

    def before_step(self) -> None:
        """Before each iteration. Slow work belongs into `after_step`, or timers count it."""

    def after_backward(self) -> None:
        """Between an iteration's backward pass and its optimizer step."""

    def after_step(self) -> None:
        """After each iteration."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of this hook; empty if it needs nothing."""
        return {}


def _log_failure(
    exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
) -> None:
    if exc_type is not None and issubclass(exc_type, Exception):
        logger.error("Training ended by an error:", exc_info=(exc_type, exc, trace))


class TrainerBase:
    """A loop with hooks; subclasses say in `run_step` what an iteration is.

    Attributes: `iter`, the current iteration; `start_iter` and `max_iter`, the first one and the
    one before which to stop; `storage`, the EventStorage that is open while training.
    """

    def __init__(self) -> None:
        self._hooks: list[HookBase] = []
        self.iter: int = 0
        self.start_iter: int = 0
        self.max_iter: int
        self.storage: EventStorage

    def register_hooks(self, hooks: Iterable[HookBase | None]) -> None:
        """Append `hooks`, without the None among them; they are called in this order."""
        for hook in hooks:
            if hook is None:
                continue
            if not isinstance(hook, HookBase):
                raise TypeError(f"{hook!r} is no hook; derive its class from HookBase")
            hook.trainer = weakref.proxy(self)  # trainer and hooks must not keep each other alive
            self._hooks.append(hook)

    def train(self, start_iter: int, max_iter: int) -> None:
        """Run the iterations start_iter, ..., max_iter - 1.

        In `after_train`, `iter == max_iter` tells that all of them went well.
        """
        logger.info("Training iterations %d to %d", start_iter, max_iter - 1)
        self.iter = self.start_iter = start_iter
        self.max_iter = max_iter
        with EventStorage(start_iter) as self.storage, ExitStack() as at_end:
            at_end.callback(self.after_train)
            at_end.push(_log_failure)
            self.before_train()
            for self.iter in range(start_iter, max_iter):
                self.before_step()
                self.run_step()
                self.after_step()
            self.iter += 1

    def before_train(self) -> None:
        for hook in self._hooks:
            hook.before_train()

    def after_train(self) -> None:
        self.storage.iter = self.iter
        for hook in self._hooks:
            hook.after_train()

    def before_step(self) -> None:
        self.storage.iter = self.iter
        for hook in self._hooks:
            hook.before_step()

    def after_backward(self) -> None:
        for hook in self._hooks:
            hook.after_backward()

    def after_step(self) -> None:
        for hook in self._hooks:
            hook.after_step()

    def run_step(self) -> None:
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """{"iteration": the current one, "hooks": {class name: state}}.

        Of several hooks of one class only the first is kept.
        """
        hooks: dict[str, Any] = {}
        for hook in self._hooks:
            state = hook.state_dict()
            if state:
                hooks.setdefault(type(hook).__qualname__, state)
        return {"iteration": self.iter} | ({"hooks": hooks} if hooks else {})

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`; states of hooks that are not registered are left out."""
        self.iter = state_dict["iteration"]
        for name, state in state_dict.get("hooks", {}).items():
            hook = next((h for h in self._hooks if type(h).__qualname__ == name), None)
            if hook is None:
                logger.warning(
                    "The checkpoint has a state for hook %s, which this run has not", name
                )
            else:
                hook.load_state_dict(state)


class SimpleTrainer(TrainerBase):
    """One model, one source of data, one optimizer: forward, backward, step.

    Args:
        model: takes a batch and returns a dict of losses, or one loss.
        data_loader: yields batches; the loop ends with an error when it is exhausted.
        optimizer: steps once an iteration.
        gather_metric_period: losses are gathered from all ranks every so many iterations.
        zero_grad_before_forward: clear the gradients before the forward instead of after it.
        async_write_metrics: gather and write the losses in a thread. A non-finite loss then stops
            the run one iteration later.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable,
        optimizer: torch.optim.Optimizer,
        gather_metric_period: int = 1,
        zero_grad_before_forward: bool = False,
        async_write_metrics: bool = False,
    ) -> None:
        super().__init__()
        model.train()
        self.model = model
        self.data_loader = data_loader
        self._data_loader_iter_obj: Iterator | None = None
        self.optimizer = optimizer
        self.gather_metric_period = gather_metric_period
        self.zero_grad_before_forward = zero_grad_before_forward
        self.async_write_metrics = async_write_metrics
        self._writer_thread = ThreadPoolExecutor(max_workers=1) if async_write_metrics else None
        self._pending_write: Future | None = None

    def run_step(self) -> None:
        assert self.model.training, "the model was left in eval mode"
        start = time.perf_counter()
        data = next(self._data_loader_iter)
        data_time = time.perf_counter() - start

        if self.zero_grad_before_forward:
            self.optimizer.zero_grad()
        loss_dict, total_loss = self._forward(data)
        if not self.zero_grad_before_forward:
            self.optimizer.zero_grad()
        self._backward(total_loss)
        self.after_backward()
        # Before the optimizer's step: a non-finite loss must not reach the weights.
        if self._writer_thread is None:
            self._write_metrics(loss_dict, data_time)
        else:
            self._finish_write()
            self._pending_write = self._writer_thread.submit(
                self._write_metrics, loss_dict, data_time, iter=self.iter
            )
        self._optimizer_step()

    def _forward(self, data: Any) -> tuple[Mapping[str, torch.Tensor], torch.Tensor]:
        """The losses by name, and the one to differentiate."""
        losses = self.model(data)
        if isinstance(losses, torch.Tensor):
            return {"total_loss": losses}, losses
        return losses, sum(losses.values())

    def _backward(self, total_loss: torch.Tensor) -> None:
        total_loss.backward()

    def _optimizer_step(self) -> None:
        self.optimizer.step()

    @property
    def _data_loader_iter(self) -> Iterator:
        # Made on first use: workers start then, after the model has been loaded.
        if self._data_loader_iter_obj is None:
            self._data_loader_iter_obj = iter(self.data_loader)
        return self._data_loader_iter_obj

    def reset_data_loader(self, data_loader_builder: Callable[[], Iterable]) -> None:
        """Replace the data loader by a new one; the old one and its workers go first."""
        self.data_loader = self._data_loader_iter_obj = None
        self.data_loader = data_loader_builder()

    def _finish_write(self) -> None:
        pending, self._pending_write = self._pending_write, None
        if pending is not None:
            pending.result()

    def _write_metrics(
        self,
        loss_dict: Mapping[str, torch.Tensor],
        data_time: float,
        prefix: str = "",
        iter: int | None = None,
    ) -> None:
        iteration = self.iter if iter is None else iter
        if (iteration + 1) % self.gather_metric_period == 0:
            SimpleTrainer.write_metrics(loss_dict, data_time, iteration, prefix)

    @staticmethod
    def write_metrics(
        loss_dict: Mapping[str, torch.Tensor], data_time: float, cur_iter: int, prefix: str = ""
    ) -> None:
        """Gather over the ranks and put into the storage: mean losses, longest `data_time`.

        Args:
            loss_dict: scalar losses by name.
            data_time: seconds that this rank waited for its batch.
            cur_iter: the iteration that these belong to.
            prefix: of the name under which their sum goes: "{prefix}total_loss".

        Raises:
            FloatingPointError: the sum of the losses is not finite (on the main process).
        """
        storage = get_event_storage()
        storage.put_scalar("rank_data_time", data_time, cur_iter=cur_iter)
        losses = {name: loss.detach().cpu().item() for name, loss in loss_dict.items()}
        ranks = comm.gather((losses, data_time))
        if not comm.is_main_process():
            return
        # The slowest rank holds up all of them.
        storage.put_scalar("data_time", max(t for _, t in ranks), cur_iter=cur_iter)
        means = {name: float(np.mean([rank[name] for rank, _ in ranks])) for name in losses}
        total = sum(means.values())
        if not np.isfinite(total):
            raise FloatingPointError(
                f"the losses at iteration={cur_iter} have no finite sum: {means}; lower "
                "SOLVER.BASE_LR or look at this iteration's data"
            )
        storage.put_scalar(f"{prefix}total_loss", total, cur_iter=cur_iter)
        if len(means) > 1:
            storage.put_scalars(cur_iter=cur_iter, **means)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.optimizer.load_state_dict(state_dict["optimizer"])

    def after_train(self) -> None:
        try:
            self._finish_write()
        finally:
            super().after_train()
            if self._writer_thread is not None:
                self._writer_thread.shutdown(wait=True)


class AMPTrainer(SimpleTrainer):
    """SimpleTrainer in mixed precision, on the type of device on which the model is.

    Args:
        grad_scaler: None for torch's own of that device type.
        precision: what autocast computes in.
        log_grad_scaler: write the scale as "[metric]grad_scaler" in each iteration.
        The others are SimpleTrainer's.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable,
        optimizer: torch.optim.Optimizer,
        gather_metric_period: int = 1,
        zero_grad_before_forward: bool = False,
        grad_scaler: torch.amp.GradScaler | None = None,
        precision: torch.dtype = torch.float16,
        log_grad_scaler: bool = False,
        async_write_metrics: bool = False,
    ) -> None:
        super().__init__(
            model,
            data_loader,
            optimizer,
            gather_metric_period,
            zero_grad_before_forward,
            async_write_metrics,
        )
        self._device_type = next(model.parameters()).device.type
        self.grad_scaler = grad_scaler or _accelerator.grad_scaler(self._device_type)
        self.precision = precision
        self.log_grad_scaler = log_grad_scaler

    def _forward(self, data: Any) -> tuple[Mapping[str, torch.Tensor], torch.Tensor]:
        with _accelerator.autocast(self._device_type, self.precision):
            return super()._forward(data)

    def _backward(self, total_loss: torch.Tensor) -> None:
        self.grad_scaler.scale(total_loss).backward()
        if self.log_grad_scaler:
            get_event_storage().put_scalar("[metric]grad_scaler", self.grad_scaler.get_scale())

    def _optimizer_step(self) -> None:
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"grad_scaler": self.grad_scaler.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
