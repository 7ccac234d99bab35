"""What a script does first: arguments, loggers, seeds, writers."""

import logging

import pytest
import torch
import yaml
from detectron2.config import get_cfg
from detectron2.engine import default_argument_parser, default_setup, default_writers


@pytest.fixture
def output(tmp_path):
    return tmp_path / "output"


@pytest.fixture
def cfg(output):
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(output)
    return cfg


def test_arguments():
    args = default_argument_parser().parse_args([])
    assert vars(args) | {"dist_url": ""} == {
        "config_file": "",
        "resume": False,
        "eval_only": False,
        "num_gpus": 1,
        "num_machines": 1,
        "machine_rank": 0,
        "dist_url": "",
        "opts": [],
    }
    again = default_argument_parser().parse_args([])
    assert args.dist_url == again.dist_url
    host, port = args.dist_url.rsplit(":", 1)
    assert host == "tcp://127.0.0.1"
    assert 2**15 + 2**14 <= int(port) < 2**16
    words = ["--config-file", "a.yaml", "--num-gpus", "2", "--resume", "--eval-only"]
    words += ["SOLVER.BASE_LR", "0.1", "--x"]
    args = default_argument_parser("an epilog").parse_args(words)
    assert (args.config_file, args.num_gpus, args.resume, args.eval_only) == (
        "a.yaml",
        2,
        True,
        True,
    )
    assert args.opts == ["SOLVER.BASE_LR", "0.1", "--x"]
    assert "an epilog" in default_argument_parser("an epilog").format_help()


def test_setup_writes_config_and_log_and_seeds(cfg, output, tmp_path):
    cfg.SEED = 7
    cfg.CUDNN_BENCHMARK = True
    config_file = tmp_path / "given.yaml"
    config_file.write_text("SEED: 7  # a remark to be found in the log\n")
    args = default_argument_parser().parse_args(["--config-file", str(config_file)])
    before = torch.backends.cudnn.benchmark
    try:
        default_setup(cfg, args)
        assert torch.backends.cudnn.benchmark
        drawn = torch.rand(2).tolist()
        default_setup(cfg, args)
        assert torch.rand(2).tolist() == drawn
        args.eval_only = True
        torch.backends.cudnn.benchmark = False
        default_setup(cfg, args)
        assert not torch.backends.cudnn.benchmark
    finally:
        torch.backends.cudnn.benchmark = before
    reread = get_cfg()
    reread.merge_from_file(str(output / "config.yaml"))
    assert yaml.safe_load(reread.dump()) == yaml.safe_load(cfg.dump())
    for handler in logging.getLogger("detectron2").handlers:
        handler.flush()
    log = (output / "log.txt").read_text()
    for text in ("World size: 1", "Command line arguments", "a remark to be found", "numpy"):
        assert text in log


def test_setup_without_a_seed_draws_one(cfg):
    args = default_argument_parser().parse_args([])
    default_setup(cfg, args)
    first = torch.rand(2).tolist()
    default_setup(cfg, args)
    assert torch.rand(2).tolist() != first


def test_writers(tmp_path):
    writers = default_writers(str(tmp_path / "new" / "folder"), 10)
    names = [type(w).__name__ for w in writers]
    assert names == ["CommonMetricPrinter", "JSONWriter", "TensorboardXWriter"]
    for writer in writers:
        writer.close()
    assert (tmp_path / "new" / "folder" / "metrics.json").is_file()
