"""mask2former comes first: it decides which detectron2 the tests import."""

import logging
import runpy
import sys
from pathlib import Path

import pytest

import mask2former  # noqa: F401  isort: skip
from detectron2.data import DatasetCatalog, MetadataCatalog

TOOLS = Path(__file__).parents[1] / "tools"


@pytest.fixture
def run_tool(monkeypatch, capsys):
    """Run a script of tools/ in this process: exit code (None if it just ends), stdout, stderr."""

    def run(script, *words):
        monkeypatch.setattr(sys, "argv", [script, *map(str, words)])
        monkeypatch.syspath_prepend(TOOLS)  # as of a script that is started
        code = None
        try:
            runpy.run_path(str(TOOLS / script), run_name="__main__")
        except SystemExit as end:
            code = end.code
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture(autouse=True)
def loggers_as_they_were():
    """What a test sets up for the console and for files of its own ends with it."""
    loggers = [logging.getLogger(name) for name in ("detectron2", "fvcore", "mask2former")]
    before = [(log.level, log.propagate, list(log.handlers)) for log in loggers]
    yield
    for log, (level, propagate, handlers) in zip(loggers, before):
        log.setLevel(level)
        log.propagate = propagate
        log.handlers[:] = handlers


@pytest.fixture(autouse=True)
def catalogs_as_they_were():
    """The datasets that a test registers end with it; those of fixtures of a wider scope stay."""
    catalogs = DatasetCatalog, MetadataCatalog
    before = [set(catalog.list()) for catalog in catalogs]
    yield
    for catalog, names in zip(catalogs, before):
        for name in set(catalog.list()) - names:
            catalog.remove(name)
