"""A tiny model on a tiny drawn dataset, run as users run it.

Fixtures `datasets` and `workplace`: a folder of tests imports them into its conftest.py.
"""

import json
import logging
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from mask2former.data.datasets import register_all
from mask2former.data.mini.cityscapes import ensure_mini_cityscapes
from mask2former.data.mini.maker import MiniSpec
from mask2former.engine import argument_parser, main

ROOT = Path(__file__).parents[1]
SPEC = MiniSpec(height=64, width=128, num_train=4, num_val=3)

# A true Mask2Former, as small as detectron2's ResNets allow; the frozen backbone makes files small.
TINY = """
_BASE_: {root}/configs/quick_start.yaml
MODEL:
  DEVICE: cpu
  BACKBONE: {{FREEZE_AT: 5}}
  RESNETS: {{NORM: FrozenBN}}
  SEM_SEG_HEAD: {{CONVS_DIM: 32, MASK_DIM: 32, TRANSFORMER_ENC_LAYERS: 1}}
  MASK_FORMER:
    HIDDEN_DIM: 32
    NHEADS: 2
    DIM_FEEDFORWARD: 32
    NUM_OBJECT_QUERIES: 8
    DEC_LAYERS: 2
    TRAIN_NUM_POINTS: 32
INPUT:
  CROP: {{SIZE: [32, 64]}}
  MIN_SIZE_TRAIN: [32, 48]
  MAX_SIZE_TRAIN: 128
  MIN_SIZE_TEST: 32
  MAX_SIZE_TEST: 64
SOLVER:
  IMS_PER_BATCH: 2
  MAX_ITER: 4
  WARMUP_ITERS: 0
DATALOADER: {{NUM_WORKERS: 0}}
OUTPUT_DIR: output
"""


@pytest.fixture(scope="session")
def datasets(tmp_path_factory):
    root = tmp_path_factory.mktemp("datasets")
    ensure_mini_cityscapes(root / "mini_cityscapes", SPEC, show_progress=False)
    return root


@dataclass
class Workplace:
    """A folder with config.yaml, in which runs are started.

    Args:
        variables: of the environment of the processes that `start` and `run` start.
    """

    folder: Path
    datasets: Path
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.folder / "config.yaml").write_text(TINY.format(root=ROOT))

    @property
    def output(self) -> Path:
        return self.folder / "output"

    def words(self, *words) -> list[str]:
        return ["--config-file", "config.yaml", *map(str, words)]

    def environment(self) -> dict[str, str]:
        own = {"DETECTRON2_DATASETS": str(self.datasets), "OMP_NUM_THREADS": "1"}
        return os.environ | own | {"PYTHONPATH": str(ROOT)} | self.variables

    def start(
        self, *words, launcher=(), script=ROOT / "train_net.py", own_group=False
    ) -> subprocess.Popen:
        command = [sys.executable, *launcher, str(script), *self.words(*words)]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=own_group,  # as of a command in a terminal
        )

    def run(self, *words, **how) -> subprocess.CompletedProcess:
        process = self.start(*words, **how)
        out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def main(self, *words) -> None:
        """As `run`, but in this process: quicker, and one process only."""
        main(argument_parser().parse_args(self.words(*words)))

    def metrics(self, folder="output") -> dict[int, dict]:
        lines = (self.folder / folder / "metrics.json").read_text().splitlines()
        found = [json.loads(line) for line in lines]
        losses = {line["iteration"]: line for line in found if "total_loss" in line}
        assert len(losses) == sum("total_loss" in line for line in found), "iterations twice"
        return losses

    def losses(self, folder="output") -> dict[int, float]:
        return {i: line["total_loss"] for i, line in self.metrics(folder).items()}

    def results(self, folder="output") -> dict:
        return json.loads((self.folder / folder / "inference" / "results.json").read_text())


def wait_for_iterations(process: subprocess.Popen, workplace: Workplace, count: int) -> None:
    deadline = time.monotonic() + 120
    metrics = workplace.output / "metrics.json"
    while not (metrics.exists() and metrics.read_text().count("\n") >= count):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def workplace(tmp_path, datasets, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(datasets))
    register_all(str(datasets))
    level, num_threads = logging.root.level, torch.get_num_threads()
    torch.set_num_threads(1)  # as in the processes: sums of other parts round to other digits
    yield Workplace(tmp_path, datasets)
    torch.set_num_threads(num_threads)
    logging.root.setLevel(level)
    register_all(os.getenv("DETECTRON2_DATASETS", "datasets"))
