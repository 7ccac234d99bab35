"""Loggers, and the start of a run's record in OUTPUT_DIR."""

import logging
import os
import sys

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.logger import setup_logger

from mask2former import device as devices
from mask2former.engine.checkpoint import write_atomically
from mask2former.engine.user_errors import NoTracebackForUserErrors
from mask2former.patch import know_all_devices

logger = logging.getLogger(__name__)

LOGGERS = ("mask2former", "detectron2", "fvcore")


def open_console(rank: int | None = None) -> None:
    """Log to the console, from the main process only; nothing is written to disk.

    Args:
        rank: of this process, if it has not joined the others yet.
    """
    for name in LOGGERS:
        setup_logger(distributed_rank=comm.get_rank() if rank is None else rank, name=name)
    logging.getLogger("detectron2.engine.train_loop").addFilter(NoTracebackForUserErrors())


def open_log(cfg: CfgNode) -> None:
    """Begin log.txt, or go on with it. To be called when the run is sure to start."""
    os.makedirs(cfg.OUTPUT_DIR, exist_ok=True)
    rank = comm.get_rank()
    for name in LOGGERS:
        setup_logger(cfg.OUTPUT_DIR, distributed_rank=rank, name=name, configure_stdout=False)
    logger.info("Command line: %s", " ".join(sys.argv))
    device = devices.describe(torch.device(cfg.MODEL.DEVICE))
    logger.info("%d process(es) on %s\n%s", comm.get_world_size(), device, collect_env_info())
    replaced = know_all_devices()  # when mask2former was imported, which no log.txt has seen
    if replaced:
        logger.debug("Of detectron2 now knows all devices: %s", ", ".join(replaced))


def save_config(cfg: CfgNode) -> None:
    """Write config.yaml, all keys, from which the run can be repeated."""
    path = os.path.join(cfg.OUTPUT_DIR, "config.yaml")
    write_atomically(path, lambda file: file.write(cfg.dump().encode()))
    logger.info("The full config is in %s", path)
