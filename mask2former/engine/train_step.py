"""One iteration: forward and backward of each part of the batch, then one optimizer step."""

import logging
import math
import random
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mask2former import device as devices
from mask2former.engine.optimizer import gradient_norm

logger = logging.getLogger(__name__)


class TrainStep(SimpleTrainer):
    """SimpleTrainer on any device, with gradient accumulation, mixed precision and a loss guard.

    The random numbers of an iteration follow from (seed, rank, iteration) alone, so that a run
    which was resumed draws what an uninterrupted one draws.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        seed: int,
        accumulate_steps: int = 1,
        amp_dtype: torch.dtype | None = None,
        max_non_finite_steps: int = 5,
    ) -> None:
        """
        Args:
            model: maps a batch to a dict of weighted losses.
            seed: of the run; the checkpoint keeps it.
            accumulate_steps: parts of a batch; gradients and losses are their mean.
            amp_dtype: what mixed precision computes in; None: no mixed precision.
            max_non_finite_steps: the run ends after this many non-finite losses running; until
                then such a step is left out.
        """
        super().__init__(model, None, optimizer)
        self.seed = seed
        self.accumulate_steps = accumulate_steps
        self.max_non_finite_steps = max_non_finite_steps
        self.num_non_finite_steps = 0
        self.device = next(model.parameters()).device
        self.amp_dtype = amp_dtype
        self.grad_scaler = devices.grad_scaler(self.device.type, amp_dtype or torch.float32)

    def read_from(self, data_loader: Iterable[list[dict]]) -> None:
        """Train on `data_loader` from now on. Its first batch is read at once.

        What is wrong with the data shows then, before the run has written anything.
        """
        self.data_loader = data_loader
        iterator = iter(data_loader)
        self._data_loader_iter_obj = chain([next(iterator)], iterator)

    def run_step(self) -> None:
        assert self.model.training, "the model was left in eval mode"
        seed_iteration(self.seed, comm.get_rank(), self.iter, self.device.type)
        self.optimizer.zero_grad()
        data_time, file_names = 0.0, []
        totals: dict[str, Tensor] = {}
        for part in range(self.accumulate_steps):
            start = time.perf_counter()
            batch = next(self._data_loader_iter)
            data_time += time.perf_counter() - start
            file_names += [sample.get("file_name", "?") for sample in batch]
            losses = self._forward_backward(batch, is_last=part == self.accumulate_steps - 1)
            for name, loss in losses.items():
                totals[name] = totals.get(name, 0) + loss.detach().float() / self.accumulate_steps
        self.after_backward()
        self.grad_scaler.unscale_(self.optimizer)
        metrics = self._reduce(totals, data_time)
        if self._is_usable(metrics, file_names):
            self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()
        self._put(metrics)

    def _forward_backward(self, batch: list[dict], is_last: bool) -> Mapping[str, Tensor]:
        is_parallel = isinstance(self.model, DistributedDataParallel)
        # Ranks need to agree on gradients once an iteration, not once a part.
        communication = self.model.no_sync() if is_parallel and not is_last else nullcontext()
        with communication:
            with self._autocast():
                losses = self.model(batch)
                total = sum(losses.values())
            self.grad_scaler.scale(total / self.accumulate_steps).backward()
        return losses

    def _autocast(self) -> AbstractContextManager:
        if self.amp_dtype is None:
            return nullcontext()
        return devices.autocast(self.device.type, self.amp_dtype)

    def _reduce(self, losses: dict[str, Tensor], data_time: float) -> dict[str, float]:
        """Losses averaged over the ranks, the gradient's norm, the longest wait for data.

        One transfer from the device and one message a step, whatever the number of losses.
        """
        names = sorted(losses)
        norm = gradient_norm(self.model.parameters())
        if hasattr(self.optimizer, "known_norm"):  # ours, which would count it again to clip
            self.optimizer.known_norm = norm
        values = torch.stack([*(losses[name] for name in names), norm.to(self.device)])
        values = torch.cat([values, values.new_full((1,), data_time)])
        ranks = [values]
        if comm.get_world_size() > 1:
            ranks = [torch.empty_like(values) for _ in range(comm.get_world_size())]
            dist.all_gather(ranks, values)
        table = torch.stack(ranks).cpu().double()  # (ranks, losses + 2)
        metrics = dict(zip(names, table.mean(0).tolist()))
        metrics["total_loss"] = sum(metrics.values())
        metrics["grad_norm"] = table[:, -2].max().item()
        metrics["data_time"] = table[:, -1].max().item()
        return metrics

    def _is_usable(self, metrics: dict[str, float], file_names: list[str]) -> bool:
        """Whether to take this step.

        Raises:
            FloatingPointError: the loss was not finite in too many iterations running.
        """
        bad = [k for k, v in metrics.items() if "loss" in k and not math.isfinite(v)]
        if not math.isfinite(metrics["grad_norm"]) and not self._scaler_copes():
            bad.append("grad_norm")
        if not bad:
            self.num_non_finite_steps = 0
            return True
        self.num_non_finite_steps += 1
        bad = [name for name in bad if name != "total_loss"] or bad
        files = sorted(set(chain.from_iterable(comm.all_gather(file_names))))
        found = f"iteration {self.iter}: {', '.join(bad)} not finite on {', '.join(files)}"
        if self.num_non_finite_steps >= self.max_non_finite_steps:
            precision = "" if self.amp_dtype is None else ", or set SOLVER.AMP.ENABLED False"
            raise FloatingPointError(
                f"{found}; so for {self.num_non_finite_steps} iterations running "
                "(SOLVER.MAX_NON_FINITE_STEPS), so the run stops: look at these files, or lower "
                f"SOLVER.BASE_LR{precision}"
            )
        logger.warning("%s; this step is left out", found)
        return False

    def _scaler_copes(self) -> bool:
        """Whether gradients that are not finite are the scaler's business.

        With float16 there are some now and then by design, while it looks for the largest scale.
        Below 1 it looks in vain.
        """
        return self.grad_scaler.is_enabled() and self.grad_scaler.get_scale() >= 1

    def _put(self, metrics: dict[str, float]) -> None:
        storage = get_event_storage()
        # What is not finite would stay in the smoothed curves.
        storage.put_scalars(**{k: v for k, v in metrics.items() if math.isfinite(v)})
        memory = devices.max_memory_mb(self.device)
        if memory is not None:
            storage.put_scalar("max_mem_mb", memory, smoothing_hint=False)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {
            "grad_scaler": self.grad_scaler.state_dict(),
            "seed": self.seed,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """
        Raises:
            ValueError: the optimizer's state is that of other parameter groups.
        """
        check_optimizer_state(self.optimizer, state_dict["optimizer"])
        super().load_state_dict(state_dict)
        if state_dict.get("grad_scaler"):
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
        self.seed = state_dict.get("seed", self.seed)


def seed_iteration(seed: int, rank: int, iteration: int, device_type: str) -> None:
    """Seed python's, numpy's and torch's global generators, the devices' among them."""
    own = np.random.SeedSequence([seed, rank, iteration]).generate_state(2)
    random.seed(int(own[0]))
    np.random.seed(own[0])
    devices.seed_all(int(own[1]), device_type)


def check_optimizer_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """
    Raises:
        ValueError: `state` is of an optimizer of another kind or over other parameter groups.
    """
    have = [len(group["params"]) for group in optimizer.param_groups]
    found = [len(group["params"]) for group in state["param_groups"]]
    what_to_do = (
        "resume with the config that the run began with, or start anew from its weights "
        "(MODEL.WEIGHTS, without --resume)"
    )
    if have != found:
        raise ValueError(
            f"the checkpoint's optimizer has groups of {found} parameters, this one of {have}; "
            f"{what_to_do}"
        )
    # Not all names: versions of torch differ in some.
    for name in ("momentum", "betas"):
        if name in optimizer.param_groups[0] and name not in state["param_groups"][0]:
            raise ValueError(
                f"the checkpoint is of another SOLVER.OPTIMIZER (its state has no {name}); "
                f"{what_to_do}"
            )
