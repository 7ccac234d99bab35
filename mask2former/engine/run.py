"""A run from its arguments: check, launch, then train or evaluate."""

import argparse
import logging
import os
from collections import OrderedDict

import torch
from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser
from detectron2.evaluation import verify_results
from detectron2.utils import comm

from mask2former import DETECTRON2_PROVIDER
from mask2former import device as devices
from mask2former.config import load_config, validate_config
from mask2former.curves import draw_runs, read_run
from mask2former.curves.read import METRICS_FILE
from mask2former.data.class_weights import AUTO, resolve_class_weights
from mask2former.data.own import derive_from_data, register_from_config
from mask2former.engine import pictures
from mask2former.engine.auto_scale import auto_scale
from mask2former.engine.checkpoint import Checkpointer
from mask2former.engine.launch import (
    check_device_count,
    fail,
    first_rank,
    interrupted,
    launch,
    under_torchrun,
    world_size,
)
from mask2former.engine.output import open_console, open_log
from mask2former.engine.trainer import TTA_SUFFIX, Trainer, inference_dir
from mask2former.engine.user_errors import CANDIDATES, user_sentence
from mask2former.modeling.criterion.build import read_class_weights

logger = logging.getLogger(__name__)

RESUME = "; --resume goes on from the last checkpoint, if there is one"


def argument_parser() -> argparse.ArgumentParser:
    """detectron2's options; without --dist-url the processes of one machine take a free port."""
    parser = default_argument_parser()
    parser.set_defaults(dist_url="auto")
    return parser


def main(args: argparse.Namespace) -> None:
    """Do what the arguments say, in as many processes as they say.

    Raises:
        SystemExit: the user made a mistake, or pressed Ctrl-C; one sentence on stderr says so.
    """
    try:
        cfg = setup(args)
        launch(
            run,
            args.num_gpus,
            args.num_machines,
            args.machine_rank,
            args.dist_url,
            (cfg, args),
            torch.device(cfg.MODEL.DEVICE).type,
        )
    except CANDIDATES as error:
        sentence = user_sentence(error)
        if sentence is None:
            raise
        fail(sentence)
    except KeyboardInterrupt:
        interrupted("" if args.eval_only else RESUME)


def setup(args: argparse.Namespace) -> CfgNode:
    """The config that the arguments ask for, checked, frozen, with a device instead of "auto".

    Raises:
        FileNotFoundError, ValueError: in one sentence what is wrong and what to do.
    """
    open_console(first_rank(args.machine_rank))
    cfg = load_config(args.config_file, args.opts or [])
    derive_from_data(cfg, args.eval_only)
    device = devices.resolve_device(cfg.MODEL.DEVICE)
    cfg.MODEL.DEVICE = str(device)
    if not under_torchrun():
        check_device_count(device.type, args.num_gpus)
    validate_config(cfg, world_size(args.num_gpus, args.num_machines), args.eval_only)
    if args.eval_only:
        cfg.MODEL.MASK_FORMER.CLASS_WEIGHTS = []  # of the loss, for which nobody asks
    else:
        auto_scale(cfg)
        check_class_weights(cfg)
    cfg.freeze()
    return cfg


def check_class_weights(cfg: CfgNode) -> None:
    """
    Raises:
        ValueError: MODEL.MASK_FORMER.CLASS_WEIGHTS names unknown classes, or has no weights.
    """
    if list(cfg.MODEL.MASK_FORMER.CLASS_WEIGHTS) != [AUTO]:
        read_class_weights(cfg, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)


def run(cfg: CfgNode, args: argparse.Namespace) -> OrderedDict | None:
    """In each process: train, or evaluate with --eval-only. Returns the evaluation's results."""
    open_console()
    device = torch.device(cfg.MODEL.DEVICE)
    if device.index is not None:
        devices.set_device(device)  # or memory would be that of the device of index 0
    logger.info("detectron2: the %s one; device: %s", DETECTRON2_PROVIDER, devices.describe(device))
    set_precision(cfg, args.eval_only)
    register_from_config(cfg)
    if args.eval_only:
        return evaluate(cfg, args.resume)
    return train(resolve_class_weights(cfg), args.resume)


def train(cfg: CfgNode, resume: bool) -> OrderedDict | None:
    """Train, then leave the loss curve and pictures of predictions in OUTPUT_DIR."""
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=resume)
    trainer.train()
    if comm.is_main_process():
        leave_pictures(cfg, trainer)
    comm.synchronize()
    return trainer.last_results


def evaluate(cfg: CfgNode, resume: bool) -> OrderedDict:
    """Evaluate MODEL.WEIGHTS, or with `resume` the last checkpoint of OUTPUT_DIR."""
    Trainer.check_test_sets(cfg)
    model = Trainer.build_model(cfg)
    Checkpointer(model, cfg.OUTPUT_DIR, must_fit=True).resume_or_load(
        cfg.MODEL.WEIGHTS, resume=resume
    )
    open_log(cfg)
    results = Trainer.test(cfg, model)
    if cfg.TEST.AUG.ENABLED:
        results.update(Trainer.test_with_TTA(cfg, model))
    if comm.is_main_process():
        verify_results(cfg, results)
        logger.info("Results: %s", os.path.join(inference_dir(cfg), "results.json"))
    return results


def set_precision(cfg: CfgNode, eval_only: bool) -> None:
    """CUDNN_BENCHMARK and FLOAT32_PRECISION, detectron2's keys."""
    if not eval_only:  # an evaluation is too short for the search to pay
        torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
    if cfg.FLOAT32_PRECISION:
        torch.set_float32_matmul_precision(cfg.FLOAT32_PRECISION)


def leave_pictures(cfg: CfgNode, trainer: Trainer) -> None:
    """Draw the losses and some predictions, and say where everything is."""
    folder = cfg.OUTPUT_DIR
    if trainer.start_iter < trainer.max_iter:  # or there may be no losses
        curve = os.path.join(folder, "loss_curve.png")
        draw_runs({os.path.basename(os.path.abspath(folder)): read_run(folder)}, curve)
        logger.info("Losses: %s, drawn in %s", os.path.join(folder, METRICS_FILE), curve)
    for name in cfg.DATASETS.TEST[:1]:
        path = os.path.join(folder, "predictions.png")
        if pictures.draw_predictions(cfg, trainer.model, name, path):
            logger.info("Predictions: %s", path)
    logger.info("TensorBoard: tensorboard --logdir %s", folder)
    logger.info("Weights: %s", os.path.join(folder, "model_final.pth"))
    score = summary(trainer.last_results)
    if score:
        logger.info("Validation: %s", score)


# Task -> its main number, and the keys under which the evaluators have it
MAIN_NUMBERS = {
    "panoptic_seg": ("PQ", ("PQ",)),
    "segm": ("AP", ("AP",)),
    "sem_seg": ("mIoU", ("IoU", "mIoU")),
}


def summary(results: dict) -> str:
    """The main number of each task that was evaluated; of mIoU, over how many classes."""
    if any(isinstance(value, dict) for scores in results.values() for value in scores.values()):
        parts = {name: summary(scores) for name, scores in results.items()}  # of each dataset
        return "; ".join(f"{name}: {part}" for name, part in parts.items() if part)
    found = []
    for suffix, how in (("", ""), (TTA_SUFFIX, " with test-time augmentation")):
        for task, (name, keys) in MAIN_NUMBERS.items():
            scores = results.get(task + suffix, {})
            classes = [v for k, v in scores.items() if k.startswith("IoU-") and v == v]
            over = f" over {len(classes)} classes" if classes else ""
            found += [f"{name} {scores[key]:.2f}{over}{how}" for key in keys if key in scores]
    return ", ".join(found)
