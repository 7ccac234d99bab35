"""Run something on the simulated device, in a process of its own; see tests/sdaa_sim/README.md."""

import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent.parent
ROOT = TESTS.parent
SIMULATOR = TESTS / "sdaa_sim"


@functools.cache
def reason_against() -> str:
    """Why there can be no simulated device here; "" if there is. Compiles it the first time."""
    sys.path.insert(0, str(SIMULATOR))
    try:
        from simulated_device.build import library

        library()
    except ImportError as error:
        return str(error)
    finally:
        sys.path.remove(str(SIMULATOR))
    return ""


def need() -> None:
    """Skip the test where the device cannot be compiled; in CI it must be."""
    if reason := reason_against():
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


def environment(devices: int = 4, env: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variables of a process that finds `torch_sdaa`, this project, and the tests' helpers."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("SDAA_", "TORCH_SDAA_"))}
    paths = (SIMULATOR, ROOT, TESTS)
    return {
        **clean,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "SDAA_SIM_DEVICES": str(devices),
        **(env or {}),
    }


def run(
    script: str | Sequence[str | Path],
    *,
    devices: int = 4,
    env: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
    timeout: float = 600,
    returncode: int = 0,
) -> str:
    """Output (both streams) of a Python program that runs on `devices` simulated devices.

    Args:
        script: source text, or what follows `python` on a command line. Source text is run as a
            file, so that it can start processes, under `if __name__ == "__main__"`.
        env: more environment variables.
        returncode: what the program must end with; the test fails with its output otherwise.
    """
    need()
    with tempfile.TemporaryDirectory() as folder:
        if isinstance(script, str):
            path = Path(folder) / "script.py"
            path.write_text(script, encoding="utf-8")
            script = [path]
        done = subprocess.run(
            [sys.executable, *map(str, script)],
            env=environment(devices, env),
            cwd=cwd,
            timeout=timeout,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode != returncode:
        pytest.fail(f"exit status {done.returncode}, not {returncode}:\n{done.stdout[-6000:]}")
    return done.stdout
