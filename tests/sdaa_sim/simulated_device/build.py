"""Compile csrc/ for the torch that runs, once; the library is kept in the user's cache."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

SOURCES = Path(__file__).resolve().parent.parent / "csrc"
TORCH = Path(torch.__file__).parent


def cache_folder() -> Path:
    """Where the libraries are kept: $XDG_CACHE_HOME, or ~/.cache, or else a temporary folder."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    for folder in (base, Path(tempfile.gettempdir()) / f"cache-{os.getuid()}"):
        try:
            (folder / "simulated_device").mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder / "simulated_device", os.W_OK):
            return folder / "simulated_device"
    raise ImportError(f"{base} cannot be written; set XDG_CACHE_HOME to a folder that can")


def compiler_command(output: Path) -> list[str]:
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
    if compiler is None or sys.platform != "linux":
        raise ImportError(
            f"no C++ compiler for the simulated device on {sys.platform}; "
            "install g++ on Linux, or set CXX"
        )
    return [
        *compiler.split(),
        *("-std=c++20", "-O1", "-fPIC", "-shared", "-w"),
        f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}",
        f"-I{TORCH / 'include'}",
        f"-I{TORCH / 'include/torch/csrc/api/include'}",
        str(SOURCES / "backend.cpp"),
        *("-o", str(output)),
        f"-L{TORCH / 'lib'}",
        *("-ltorch", "-ltorch_cpu", "-lc10"),
    ]


def library() -> Path:
    """The compiled library, compiled now if there is none for this torch and these sources.

    Raises:
        ImportError: there is no compiler, or it fails; the message has its first errors.
    """
    digest = hashlib.sha256(f"{torch.__version__} {TORCH}".encode())
    for source in sorted(SOURCES.iterdir()):
        digest.update(source.read_bytes())
    digest.update(Path(__file__).read_bytes())
    folder = cache_folder()
    built = folder / f"torch{torch.__version__}-{digest.hexdigest()[:16]}.so"
    if built.exists():
        return built
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            unfinished = built.with_suffix(f".{os.getpid()}.tmp")
            command = compiler_command(unfinished)
            try:
                done = subprocess.run(command, capture_output=True, text=True, check=False)
            except OSError as error:
                raise ImportError(f"{command[0]} does not run: {error}; set CXX") from error
            if done.returncode:
                errors = [line for line in done.stderr.splitlines() if "error" in line]
                raise ImportError(
                    f"compiling the simulated device with {command[0]} failed: "
                    + "; ".join(errors[:5] or done.stderr.splitlines()[-5:])
                )
            os.replace(unfinished, built)
    return built
