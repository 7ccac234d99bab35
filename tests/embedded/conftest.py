"""Where the tests run on the real detectron2, a file test_embedded_*.py is one test: all of the
file, on the embedded one, in a process of its own.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mask2former

ROOT = Path(__file__).parents[2]


class OnEmbedded(pytest.Item):
    def runtest(self) -> None:
        run = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(self.path)],
            env={**os.environ, "M2F_DETECTRON2": "embedded"},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if run.returncode != 0:
            pytest.fail(run.stdout, pytrace=False)


class FileOnEmbedded(pytest.File):
    def collect(self) -> Iterator[OnEmbedded]:
        yield OnEmbedded.from_parent(self, name="on_embedded")


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.File | None:
    if mask2former.DETECTRON2_PROVIDER == "real" and module_path.name.startswith("test_embedded_"):
        return FileOnEmbedded.from_parent(parent, path=module_path)
    return None
