import sys
from pathlib import Path

from tiny_run import datasets, workplace  # noqa: F401

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))  # tools, and the package benchmarks
