"""mask2former comes first: it decides which detectron2 the tests import."""

import logging

import pytest

import mask2former  # noqa: F401


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
