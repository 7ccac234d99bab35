"""Runs of the tiny model one after the other: a process takes longer to start than they do.

    python device_runs.py FILE CASE ...

in a folder with config.yaml does what these CASES say, each run with an OUTPUT_DIR of its name, and
writes into FILE, as JSON, what each said on stderr and the peak of the device's memory.
"""

import contextlib
import io
import json
import logging
import math
import shutil
import sys
from pathlib import Path
from unittest import mock

import device_models
import torch

from mask2former import device as devices
from mask2former.engine import argument_parser, main
from mask2former.engine.output import LOGGERS
from mask2former.modeling.criterion.criterion import SetCriterion

AMP = ("SOLVER.AMP.ENABLED", "True")
HALFWAY = 10
STEPS = ("SOLVER.MAX_ITER", str(2 * HALFWAY), "SOLVER.CHECKPOINT_PERIOD", str(HALFWAY))
UNTESTED = ("DATASETS.TEST", "()")


def run(case, *words, device="auto"):
    """train_net.py with `words`."""
    words = ["--config-file", "config.yaml", *words, "OUTPUT_DIR", case, "MODEL.DEVICE", device]
    loggers = [logging.getLogger(name) for name in LOGGERS]
    handlers = [list(logger.handlers) for logger in loggers]
    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.suppress(SystemExit):
        main(argument_parser().parse_args(words))
    for logger, before in zip(loggers, handlers):
        logger.handlers[:] = before  # what comes next is not for this run's log.txt
    device = torch.device(devices.best_device_type() if device == "auto" else device)
    return {"stderr": said.getvalue(), "peak_mb": devices.max_memory_mb(device)}


def leave_half(origin, folder):
    """What a run that was killed halfway would have left."""
    Path(folder).mkdir()
    checkpoint = f"model_{HALFWAY - 1:07d}.pth"
    for name in (checkpoint, "metrics.json"):
        shutil.copy(Path(origin, name), folder)
    Path(folder, "last_checkpoint").write_text(checkpoint)


def resume(case, origin, *words):
    leave_half(origin, case)
    return run(case, "--resume", *STEPS, *words)


def with_losses(case, function, *words):
    """A run in which `function` gets the losses of each iteration, and returns them."""
    usual = SetCriterion.forward

    def forward(self, *args):
        return function(usual(self, *args))

    with mock.patch.object(SetCriterion, "forward", forward):
        return run(case, *words, *UNTESTED)


def one_bad_loss(case):
    """The loss of iteration 1 is infinite."""
    factors = iter([1.0, math.inf, 1.0, 1.0])
    return with_losses(case, lambda x: {**x, "loss_ce": x["loss_ce"] * next(factors)}, *AMP)


def out_of_memory(case):
    """In the backward pass of the first iteration."""

    def fail_next(losses):
        torch.sdaa._fail_next()
        return losses

    return with_losses(case, fail_next)


@device_models.as_laid_out_on_the_device
def on_a_cpu(case):
    """With the device's op for deformable attention; others round differently."""
    op = "MODEL.SEM_SEG_HEAD.MS_DEFORM_ATTN", "Gather"
    return run(case, *STEPS, *UNTESTED, *op, device="cpu")


CASES = {
    "cpu": on_a_cpu,
    "full": lambda case: run(case, *STEPS),
    "amp": lambda case: run(case, *STEPS, *AMP),
    "short_amp": lambda case: run(case, *AMP),
    "amp_resumed": lambda case: resume(case, "amp", *AMP, *UNTESTED),
    "cpu_resumed": lambda case: resume(case, "cpu", *UNTESTED),
    "one_bad_loss": one_bad_loss,
    "only_bad_losses": lambda case: run(
        case, *AMP, "MODEL.PIXEL_STD", "(0.0,0.0,0.0)", "SOLVER.MAX_NON_FINITE_STEPS", "2"
    ),
    "out_of_memory": out_of_memory,
    "precision": lambda case: device_models.precision(devices.best_device_type()),
    "too_many": lambda case: run(case, "--num-gpus", "4"),
}


if __name__ == "__main__":
    file, *cases = sys.argv[1:]
    Path(file).write_text(json.dumps({case: CASES[case](case) for case in cases}))
