"""The training that a config describes, on any device and either detectron2."""

import inspect
import json
import logging
import math
import os
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.engine import DefaultTrainer, HookBase, hooks
from detectron2.engine.train_loop import TrainerBase
from detectron2.evaluation import DatasetEvaluator
from detectron2.modeling import build_model
from detectron2.projects.deeplab import build_lr_scheduler
from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from fvcore.nn.precise_bn import get_bn_modules
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mask2former import device as devices
from mask2former.data import build_test_loader, build_train_loader
from mask2former.engine.checkpoint import Checkpointer, write_atomically
from mask2former.engine.data_hint import DataHint, cores_of_a_process
from mask2former.engine.optimizer import build_optimizer
from mask2former.engine.output import open_log, save_config
from mask2former.engine.train_step import TrainStep, seed_iteration
from mask2former.engine.writers import (
    CONSOLE_PERIOD,
    ConsoleWriter,
    build_writers,
    write_period,
)
from mask2former.evaluation import build_evaluator
from mask2former.modeling.test_time_augmentation import SemanticSegmentorWithTTA

logger = logging.getLogger(__name__)

TTA_SUFFIX = "_TTA"
BEFORE_TRAINING = 2**32 - 1  # stands for the iteration in which the weights are drawn


class Trainer(DefaultTrainer):
    """DefaultTrainer with our own step, loader, optimizer, evaluators and checkpoints.

    Building it writes nothing: `train` does, once weights and data have proved to be good.
    """

    def __init__(self, cfg: CfgNode) -> None:
        TrainerBase.__init__(self)  # DefaultTrainer's would build its own step, for CUDA only
        cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
        self.cfg = cfg
        self.max_iter = cfg.SOLVER.MAX_ITER
        seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
        seed_iteration(seed, 0, BEFORE_TRAINING, devices.resolve_device(cfg.MODEL.DEVICE).type)
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        solver = cfg.SOLVER
        device_type = next(model.parameters()).device.type
        if comm.get_world_size() > 1:
            model = parallel(model)
        amp = solver.AMP
        self._trainer = TrainStep(
            model,
            optimizer,
            seed=seed,
            accumulate_steps=solver.ACCUMULATE_STEPS,
            amp_dtype=devices.amp_dtype(device_type, amp.DTYPE) if amp.ENABLED else None,
            max_non_finite_steps=solver.MAX_NON_FINITE_STEPS,
        )
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = Checkpointer(model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
        self.register_hooks(self.build_hooks())

    def train(self) -> OrderedDict | None:
        """Train from `start_iter` to SOLVER.MAX_ITER; the return value is DefaultTrainer's."""
        seed = self._trainer.seed
        self._trainer.read_from(self.build_train_loader(self.cfg, self.start_iter, seed))
        self.check_test_sets(self.cfg)
        open_log(self.cfg)
        logger.info("SEED %d, from iteration %d to %d", seed, self.start_iter, self.max_iter)
        if comm.is_main_process():
            save_config(self.cfg)
            self.register_hooks(self._writer_hooks())
        with warnings.catch_warnings():
            # torch takes a first step that is left out for one that comes too late.
            warnings.filterwarnings("ignore", r"Detected call of `lr_scheduler\.step\(\)` before")
            return super().train()

    def build_hooks(self) -> list[HookBase | None]:
        """What changes the model, then what saves it, then evaluation."""
        cfg = self.cfg
        precise_bn = None
        if cfg.TEST.PRECISE_BN.ENABLED and get_bn_modules(self.model):
            # A loader of its own: the one that trains must not lose batches.
            loader = self.build_train_loader(cfg, 0, self._trainer.seed)
            precise_bn = hooks.PreciseBN(
                cfg.TEST.EVAL_PERIOD, self.model, loader, cfg.TEST.PRECISE_BN.NUM_ITER
            )
        checkpoints = None
        if comm.is_main_process():
            checkpoints = hooks.PeriodicCheckpointer(
                self.checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD
            )

        def evaluate() -> dict:
            self.last_results = self.test(self.cfg, self.model)
            self._last_eval_results = self.last_results  # where DefaultTrainer looks for them
            return self.last_results

        def evaluate_with_tta() -> dict:
            results = self.test_with_TTA(self.cfg, self.model)
            self.last_results.update(results)
            return results

        return [
            hooks.IterationTimer(),
            hooks.LRScheduler(),
            precise_bn,
            checkpoints,
            hooks.EvalHook(cfg.TEST.EVAL_PERIOD, evaluate),
            # Many times as slow, so only once training has ended.
            hooks.EvalHook(0, evaluate_with_tta) if cfg.TEST.AUG.ENABLED else None,
        ]

    def _writer_hooks(self) -> list[HookBase]:
        # Last of all hooks, so that they write what the others have put.
        device_type = torch.device(self.cfg.MODEL.DEVICE).type
        return [
            DataHint(self.cfg.DATALOADER.NUM_WORKERS, device_type, cores_of_a_process()),
            hooks.PeriodicWriter([ConsoleWriter(self.max_iter)], CONSOLE_PERIOD),
            hooks.PeriodicWriter(self.build_writers(), write_period(self.max_iter)),
        ]

    def build_writers(self) -> list[EventWriter]:
        return build_writers(self.cfg, self.start_iter, self.max_iter)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Only the position in the schedule: its length and rates are the config's, so that a
        # run can be resumed with a larger SOLVER.MAX_ITER.
        states = state_dict.get("hooks", {})
        scheduler = states.get("LRScheduler", {})
        position = {k: v for k, v in scheduler.items() if k in ("last_epoch", "_step_count")}
        states = states | ({"LRScheduler": position} if scheduler else {})
        super().load_state_dict(state_dict | {"hooks": states})

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        model = build_model(cfg)
        device_type = next(model.parameters()).device.type
        num_trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        logger.info("Model of %.1f M trained parameters on %s", num_trained / 1e6, device_type)
        return model

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(
        cls, cfg: CfgNode, optimizer: torch.optim.Optimizer
    ) -> torch.optim.lr_scheduler.LRScheduler:
        return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode, start_iter: int = 0, seed: int = 0) -> Iterable:
        return build_train_loader(cfg, start_iter, seed)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Iterable:
        return build_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(
        cls, cfg: CfgNode, dataset_name: str, output_folder: str | None = None
    ) -> DatasetEvaluator:
        return build_evaluator(cfg, dataset_name, output_folder or inference_dir(cfg))

    @classmethod
    def check_test_sets(cls, cfg: CfgNode) -> None:
        """Say before anything is written what an evaluation would stumble over in the end.

        Raises:
            FileNotFoundError, ValueError: a dataset of DATASETS.TEST is not whole, is empty, or
                there is no evaluator for it.
        """
        for name in cfg.DATASETS.TEST:
            if not DatasetCatalog.get(name):
                raise ValueError(f"DATASETS.TEST: {name} has no images; correct it or take it out")
            cls.build_evaluator(cfg, name)

    @classmethod
    def test(
        cls,
        cfg: CfgNode,
        model: nn.Module,
        evaluators: Sequence[DatasetEvaluator] | DatasetEvaluator | None = None,
    ) -> OrderedDict:
        """DefaultTrainer's; the results are also in OUTPUT_DIR/inference/results.json."""
        results = super().test(cfg, model, evaluators)
        if comm.is_main_process():
            write_results(results, os.path.join(inference_dir(cfg), "results.json"))
        return results

    @classmethod
    def test_with_TTA(cls, cfg: CfgNode, model: nn.Module) -> OrderedDict:
        """As `test`, with the views of TEST.AUG, into OUTPUT_DIR/inference_TTA.

        Returns:
            the results, whose names have the official suffix _TTA.
        """
        logger.info("Evaluating with test-time augmentation")
        folder = f"{inference_dir(cfg)}{TTA_SUFFIX}"
        evaluators = [cls.build_evaluator(cfg, name, folder) for name in cfg.DATASETS.TEST]
        results = super().test(cfg, SemanticSegmentorWithTTA(cfg, model), evaluators)
        if comm.is_main_process():
            write_results(results, os.path.join(folder, "results.json"))
        return OrderedDict((name + TTA_SUFFIX, value) for name, value in results.items())


def parallel(model: nn.Module) -> DistributedDataParallel:
    """DistributedDataParallel as official: buffers are each process's own.

    Batch norms either synchronise their statistics themselves or are meant to differ. No
    device_ids: the model moves its inputs itself.
    """
    # The newer name in newer versions of torch, which warn of the older one.
    names = inspect.signature(DistributedDataParallel).parameters
    is_new = "forward_sync_buffers" in names
    switch = "forward_sync_buffers" if is_new else "broadcast_buffers"
    return DistributedDataParallel(model, **{switch: False})


def inference_dir(cfg: CfgNode) -> str:
    """Where evaluations write."""
    return os.path.join(cfg.OUTPUT_DIR, "inference")


def write_results(results: dict, path: str) -> None:
    """`results` as JSON; a class without pixels, whose score is NaN, is null."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    text = json.dumps(_plain(results), indent=2, allow_nan=False)
    write_atomically(path, lambda file: file.write(text.encode()))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    value = float(value)
    return value if math.isfinite(value) else None
