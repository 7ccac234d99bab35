"""detectron2's AMPTrainer on the device of its model."""

import inspect
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn

from mask2former import device as devices

if TYPE_CHECKING:  # only where it is replaced is it worth its import
    from detectron2.engine import AMPTrainer


def _device_type(model: nn.Module) -> str:
    return next(model.parameters()).device.type


def init(original: Callable, trainer: "AMPTrainer", *args, **kwargs) -> None:
    """AMPTrainer's, with a scaler of the model's device instead of CUDA's."""
    call = inspect.signature(original).bind(trainer, *args, **kwargs)
    call.apply_defaults()
    named = call.arguments
    if named["grad_scaler"] is None:
        named["grad_scaler"] = devices.grad_scaler(_device_type(named["model"]), named["precision"])
    original(*call.args, **call.kwargs)


def run_step(trainer: "AMPTrainer") -> None:
    """One iteration in mixed precision: AMPTrainer's, on the device of the model."""
    assert trainer.model.training, "the model was left in eval mode"
    start = time.perf_counter()
    batch = next(trainer._data_loader_iter)
    data_time = time.perf_counter() - start
    if trainer.zero_grad_before_forward:
        trainer.optimizer.zero_grad()
    with devices.autocast(_device_type(trainer.model), trainer.precision):
        losses, total = _named(trainer.model(batch))
    if not trainer.zero_grad_before_forward:
        trainer.optimizer.zero_grad()
    trainer.grad_scaler.scale(total).backward()
    if trainer.log_grad_scaler:
        get_event_storage().put_scalar("[metric]grad_scaler", trainer.grad_scaler.get_scale())
    trainer.after_backward()
    if trainer.async_write_metrics:
        trainer.concurrent_executor.submit(
            trainer._write_metrics, losses, data_time, iter=trainer.iter
        )
    else:
        trainer._write_metrics(losses, data_time)
    trainer.grad_scaler.step(trainer.optimizer)
    trainer.grad_scaler.update()


def _named(losses: Any) -> tuple[dict[str, Tensor], Tensor]:
    """The losses by name, and the one to differentiate."""
    if isinstance(losses, torch.Tensor):
        return {"total_loss": losses}, losses
    return losses, sum(losses.values())
