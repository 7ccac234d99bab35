"""What scripts do before a training or an evaluation: arguments, loggers, seeds, processes."""

import argparse
import os
import sys

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from detectron2.config import CfgNode
from detectron2.utils import _accelerator, comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import (
    CommonMetricPrinter,
    EventWriter,
    JSONWriter,
    TensorboardXWriter,
)
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import setup_logger


def create_ddp_model(model: nn.Module, *, fp16_compression: bool = False, **kwargs) -> nn.Module:
    """`model` itself in a single process, else DistributedDataParallel around it.

    Args:
        fp16_compression: send gradients as float16.
        kwargs: DistributedDataParallel's; by default `device_ids` is the device of the model.
    """
    if comm.get_world_size() == 1:
        return model
    if "device_ids" not in kwargs:
        device = next(model.parameters()).device
        index = comm.get_local_rank() if device.index is None else device.index
        kwargs["device_ids"] = None if device.type == "cpu" else [index]
    ddp = DistributedDataParallel(model, **kwargs)
    if fp16_compression:
        from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

        ddp.register_comm_hook(state=None, hook=default_hooks.fp16_compress_hook)
    return ddp


def default_argument_parser(epilog: str | None = None) -> argparse.ArgumentParser:
    """The options that training scripts share; the words after them change config keys."""
    script = sys.argv[0]
    parser = argparse.ArgumentParser(
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=epilog
        or f"""examples:
  {script} --config-file cfg.yaml --num-gpus 4
  {script} --config-file cfg.yaml MODEL.WEIGHTS weights.pth SOLVER.BASE_LR 0.001
  on machine R of 2:
  {script} --config-file cfg.yaml --num-machines 2 --machine-rank R --dist-url tcp://HOST:PORT
""",
    )
    # A fixed port for each user: processes that an earlier run left behind make themselves felt.
    user = os.getuid() if hasattr(os, "getuid") else 1
    port = 2**15 + 2**14 + hash(user) % 2**14
    add = parser.add_argument
    add("--config-file", default="", metavar="FILE", help="YAML file")
    add("--resume", action="store_true", help="continue from the last checkpoint of OUTPUT_DIR")
    add("--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS, do not train")
    add("--num-gpus", type=int, default=1, help="processes, or devices, on each machine")
    add("--num-machines", type=int, default=1, help="machines in all")
    add("--machine-rank", type=int, default=0, help="which of them this one is, from 0")
    add("--dist-url", default=f"tcp://127.0.0.1:{port}", help="where the processes meet, or auto")
    add("opts", default=None, nargs=argparse.REMAINDER, help="KEY VALUE pairs to change the config")
    return parser


def default_setup(cfg: CfgNode, args: argparse.Namespace) -> None:
    """At the start of a job: loggers, a record of the machine and the config, seeds.

    Writes log.txt and config.yaml to OUTPUT_DIR. The processes draw from SEED + rank.
    """
    output_dir = cfg.OUTPUT_DIR
    rank = comm.get_rank()
    is_recorder = comm.is_main_process() and bool(output_dir)
    if is_recorder:
        PathManager.mkdirs(output_dir)
    setup_logger(output_dir, distributed_rank=rank, name="fvcore")
    logger = setup_logger(output_dir, distributed_rank=rank)

    logger.info("Rank: %d. World size: %d", rank, comm.get_world_size())
    logger.info("Machine and packages:\n%s", collect_env_info())
    logger.info("Command line arguments: %s", args)
    if getattr(args, "config_file", ""):
        with PathManager.open(args.config_file, "r") as file:
            logger.info("The config file %s holds:\n%s", args.config_file, file.read())
    if is_recorder:
        logger.info("All config keys:\n%s", cfg.dump())
        path = os.path.join(output_dir, "config.yaml")
        with PathManager.open(path, "w") as file:
            file.write(cfg.dump())
        logger.info("They are saved in %s", path)

    seed_all_rng(None if cfg.SEED < 0 else cfg.SEED + rank)
    if not getattr(args, "eval_only", False):  # an evaluation is too short to be worth a benchmark
        torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
    if cfg.FLOAT32_PRECISION and _accelerator.module() is not None:
        torch.set_float32_matmul_precision(cfg.FLOAT32_PRECISION)
        torch.backends.cudnn.allow_tf32 = cfg.FLOAT32_PRECISION != "highest"


def default_writers(output_dir: str, max_iter: int | None = None) -> list[EventWriter]:
    """Writers to the console, to metrics.json and to TensorBoard files in `output_dir`."""
    PathManager.mkdirs(output_dir)
    return [
        CommonMetricPrinter(max_iter),
        JSONWriter(os.path.join(output_dir, "metrics.json")),
        TensorboardXWriter(output_dir),
    ]
