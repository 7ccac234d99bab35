"""Registries, paths, seeds, logs, tables, colours, and trying again when memory is full."""

import http.server
import logging
import os
import random
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from detectron2.utils import collect_env, colormap, env, memory
from detectron2.utils import logger as d2_logger
from detectron2.utils.file_io import PathManager
from detectron2.utils.registry import Registry, locate


def test_registry():
    registry = Registry("THINGS")

    @registry.register()
    class Thing:
        pass

    def build_thing():
        return Thing()

    registry.register(build_thing)
    assert registry.get("Thing") is Thing
    assert registry.get("build_thing") is build_thing
    assert "Thing" in registry and "Other" not in registry
    assert dict(registry) == {"Thing": Thing, "build_thing": build_thing}
    with pytest.raises(KeyError, match="Other"):
        registry.get("Other")
    with pytest.raises(AssertionError, match="Thing"):
        registry.register(Thing)


@pytest.mark.parametrize(
    "name, expected",
    [
        ("torch.nn.Linear", torch.nn.Linear),
        ("torch.nn.modules.linear.Linear", torch.nn.Linear),
        ("torch.nn.Linear.forward", torch.nn.Linear.forward),
        ("os.path", os.path),
        ("collections.OrderedDict.fromkeys", dict.fromkeys),
    ],
)
def test_locate(name, expected):
    found = locate(name)
    assert found is expected or found.__name__ == expected.__name__


def test_locate_names_what_it_does_not_find():
    with pytest.raises(ImportError, match=r"torch\.nn\.NoSuchLayer"):
        locate("torch.nn.NoSuchLayer")


def test_local_paths(tmp_path):
    path = str(tmp_path / "a" / "b.txt")
    PathManager.mkdirs(os.path.dirname(path))
    with PathManager.open(path, "w") as file:
        file.write("text")
    assert PathManager.isfile(path) and PathManager.exists(path)
    assert PathManager.isdir(str(tmp_path / "a"))
    assert PathManager.ls(str(tmp_path / "a")) == ["b.txt"]
    assert PathManager.get_local_path(path) == path
    PathManager.rm(path)
    assert not PathManager.exists(path)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serves files over HTTP, and notes what was asked for."""
    files = {"/zoo/a.txt": b"weights"}
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            content = files.get(self.path)
            self.send_response(200 if content is not None else 404)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *args):
            pass

    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    httpd = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}", asked
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_a_url_is_downloaded_once(server, tmp_path):
    address, asked = server
    local = PathManager.get_local_path(f"{address}/zoo/a.txt")
    assert local.startswith(str(tmp_path / "cache"))
    with open(local, "rb") as file:
        assert file.read() == b"weights"
    with PathManager.open(f"{address}/zoo/a.txt", "rb") as file:
        assert file.read() == b"weights"
    assert asked == ["/zoo/a.txt"]


def test_a_failed_download_leaves_nothing(server, tmp_path):
    address, _ = server
    with pytest.raises(OSError):
        PathManager.get_local_path(f"{address}/zoo/none.txt")
    assert not [p for p in tmp_path.rglob("*none*") if p.suffix != ".lock"]


def test_seeds():
    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()

    env.seed_all_rng(5)
    first = draw()
    env.seed_all_rng(6)
    assert draw() != first
    env.seed_all_rng(5)
    assert draw() == first
    env.seed_all_rng()
    assert draw() != first


def test_the_environment_can_be_set_up_again():
    env.setup_environment()
    env.setup_environment()
    assert tuple(int(x) for x in torch.__version__.split(".")[:2]) == env.TORCH_VERSION


@pytest.fixture
def new_logger():
    """Names of loggers whose handlers are taken away after the test."""
    names = []

    def make_name():
        names.append(f"test_logger_{random.getrandbits(60)}")
        return names[-1]

    yield make_name
    for name in names:
        for handler in list(logging.getLogger(name).handlers):
            logging.getLogger(name).removeHandler(handler)
            handler.close()


@pytest.mark.parametrize(
    "rank, output, expected",
    [
        (0, "run", "run/log.txt"),
        (2, "run", "run/log.txt.rank2"),
        (0, "run/train.log", "run/train.log"),
        (1, "run/train.txt", "run/train.txt.rank1"),
    ],
)
def test_log_files(tmp_path, new_logger, capsys, rank, output, expected):
    name = new_logger()
    arguments = {"output": str(tmp_path / output), "distributed_rank": rank, "name": name}
    logger = d2_logger.setup_logger(**arguments)
    assert d2_logger.setup_logger(**arguments) is logger
    logging.getLogger(f"{name}.part").debug("hello")
    logger.warning("careful")
    logger.handlers[-1].flush()
    first, second = (tmp_path / expected).read_text().splitlines()
    assert first.endswith(f"{name}.part DEBUG: hello")
    assert second.endswith(f"{name} WARNING: careful")
    console = capsys.readouterr().out
    assert console.count("hello") == (1 if rank == 0 else 0)


def test_the_console(new_logger, capsys):
    name = new_logger()
    d2_logger.setup_logger(name=name, abbrev_name="short").error("wrong")
    logging.getLogger(f"{name}.part").warning("careful")
    logging.getLogger(f"{name}.part").info("well")
    lines = [line.partition(" ")[2] for line in capsys.readouterr().out.splitlines()]
    assert lines[0].endswith(f" {name}]: wrong")
    assert lines[1].endswith(" short.part]: careful")
    assert lines[2].endswith(" short.part]: well")
    name = new_logger()
    d2_logger.setup_logger(name=name, color=False).info("right")
    assert f"] {name} INFO: right" in capsys.readouterr().out
    name = new_logger()
    d2_logger.setup_logger(name=name, configure_stdout=False).info("silent")
    assert capsys.readouterr().out == ""


def test_colors_on_a_terminal():
    script = "from detectron2.utils.logger import *; setup_logger().warning('careful')"
    variables = {**os.environ, "FORCE_COLOR": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    run = [sys.executable, "-c", script]
    line = subprocess.run(run, env=variables, check=True, capture_output=True, text=True).stdout
    red, green = "\x1b[31m", "\x1b[32m"
    assert line.index(red) < line.index("WARNING") < line.index(green) < line.index("careful")


def test_propagation(new_logger, caplog):
    d2_logger.setup_logger(name=new_logger(), configure_stdout=False).info("kept")
    d2_logger.setup_logger(name=new_logger(), configure_stdout=False, enable_propagation=True).info(
        "passed on"
    )
    assert caplog.messages == ["passed on"]


def test_small_table():
    table = d2_logger.create_small_table({"mIoU": 12.34567, "n": 3}).splitlines()
    assert [cell.strip() for cell in table[0].strip("|").split("|")] == ["mIoU", "n"]
    assert [cell.strip() for cell in table[2].strip("|").split("|")] == ["12.346", "3"]


def test_log_first_n(caplog):
    caplog.set_level(logging.INFO)
    for i in range(4):
        d2_logger.log_first_n(logging.INFO, f"line {i}", 2, name="a")
        d2_logger.log_first_n(logging.INFO, f"message {i % 2}", key="message", name="a")
        d2_logger.log_first_n(logging.INFO, "both", key=("caller", "message"), name="a")
    assert caplog.messages == ["line 0", "message 0", "both", "line 1", "message 1"]


def test_log_every_n(caplog):
    caplog.set_level(logging.INFO)
    for i in range(7):
        d2_logger.log_every_n(logging.INFO, f"third {i}", 3, name="a")
        d2_logger.log_every_n_seconds(logging.INFO, f"seldom {i}", 1000, name="a")
        d2_logger.log_every_n_seconds(logging.INFO, f"always {i}", 0, name="a")
    assert [m for m in caplog.messages if "third" in m] == ["third 0", "third 3", "third 6"]
    assert [m for m in caplog.messages if "seldom" in m] == ["seldom 0"]
    assert len([m for m in caplog.messages if "always" in m]) == 7


def test_colors():
    rgb = colormap.colormap(rgb=True)
    assert rgb.shape == (74, 3) and rgb.dtype == np.float32
    np.testing.assert_allclose(
        rgb[:3], [[0, 113.985, 188.955], [216.75, 82.875, 24.99], [236.895, 176.97, 31.875]]
    )
    np.testing.assert_allclose(rgb.sum(0), [8752.62, 8362.98, 8344.875], rtol=1e-5)
    np.testing.assert_array_equal(colormap.colormap(), rgb[:, ::-1])
    np.testing.assert_allclose(colormap.colormap(rgb=True, maximum=1) * 255, rgb, rtol=1e-6)
    table = {tuple(color) for color in rgb}
    assert tuple(colormap.random_color(rgb=True)) in table
    drawn = colormap.random_colors(10, rgb=True)
    assert len(drawn) == 10  # of different places in the table, which has some colors twice
    assert {tuple(color) for color in drawn} <= table


def fails(times, message):
    calls = []

    def function(x, *, y):
        calls.append((x, y))
        if len(calls) <= times:
            raise RuntimeError(message)
        return x + y

    return function, calls


@pytest.mark.parametrize("times", [0, 1, 2])
def test_out_of_memory_is_tried_again(times):
    function, calls = fails(times, "CUDA out of memory. Tried to allocate 2.00 GiB")
    result = memory.retry_if_cuda_oom(function)(torch.ones(2), y=1)
    assert result.tolist() == [2, 2]
    assert len(calls) == times + 1


def test_it_is_not_tried_for_ever():
    function, calls = fails(3, "CUDA out of memory. Tried to allocate 2.00 GiB")
    with pytest.raises(RuntimeError, match="out of memory"):
        memory.retry_if_cuda_oom(function)(torch.ones(2), y=1)
    assert len(calls) == 3


def test_other_errors_are_raised_at_once():
    function, calls = fails(1, "shapes do not fit")
    with pytest.raises(RuntimeError, match="shapes"):
        memory.retry_if_cuda_oom(function)(torch.ones(2), y=1)
    assert len(calls) == 1


def test_environment_info():
    info = collect_env.collect_env_info()
    assert torch.__version__ in info and np.__version__ in info and "detectron2" in info
