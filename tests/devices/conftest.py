"""Runs of a tiny model on a tiny drawn dataset."""

from tiny_run import datasets, workplace  # noqa: F401
