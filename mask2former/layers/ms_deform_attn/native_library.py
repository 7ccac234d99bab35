"""C code of this package as a library: compiled when it is first needed, then found in a cache.

The compiler is $CC, cc, gcc or clang; libraries lie in mask2former/ of $XDG_CACHE_HOME or ~/.cache.
"""

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

COMPILERS = ("cc", "gcc", "clang")
# No -ffast-math: NaN has to stay NaN.
FLAGS = ("-O3", "-march=native", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-fPIC")


class BuildError(RuntimeError):
    """In one line, why there is no library."""


def find_compiler() -> list[str]:
    """The command's words: $CC, which may have options, or the first that there is.

    Raises:
        BuildError: there is none.
    """
    try:
        configured = shlex.split(os.environ.get("CC", ""))
    except ValueError as error:  # a quotation that does not end
        raise BuildError(f"CC={os.environ['CC']} is no command: {error}") from error
    if configured:
        if shutil.which(configured[0]) is None:
            raise BuildError(f"no C compiler CC={configured[0]}; set CC to one, or to nothing")
        return configured
    for name in COMPILERS:
        if found := shutil.which(name):
            return [found]
    raise BuildError(f"no C compiler ({', '.join(COMPILERS)}) on PATH; set CC")


def run_compiler(*command: str | Path) -> bytes:
    """What it prints.

    Raises:
        BuildError: with the first error that it told of.
    """
    environment = {**os.environ, "LC_ALL": "C"}  # "error:" in English
    try:
        done = subprocess.run(command, capture_output=True, env=environment, check=False)
    except OSError as error:
        raise BuildError(f"cannot run the C compiler {command[0]}: {error.strerror}") from error
    if done.returncode:
        lines = done.stderr.decode(errors="replace").split("\n")
        told = next((line for line in lines if "error:" in line), f"status {done.returncode}")
        raise BuildError(f"the C compiler {command[0]} failed: {told.strip()}")
    return done.stdout


def cache_folder() -> Path:
    """
    Raises:
        BuildError: the user has no home.
    """
    if configured := os.environ.get("XDG_CACHE_HOME"):
        return Path(configured) / "mask2former"
    try:
        return Path.home() / ".cache" / "mask2former"
    except RuntimeError as error:
        raise BuildError("no home folder to keep a library in; set XDG_CACHE_HOME") from error


def cached_path(source: Path, compiler: list[str]) -> Path:
    """Where the library is or will be: a place for each source, compiler and kind of CPU.

    The source includes no headers of ours but those beside it. The compiler's own macros name its
    version and what this machine's CPU can do, so that several machines can share a home.
    """
    macros = run_compiler(*compiler, *FLAGS, "-dM", "-E", source)
    texts = [path.read_bytes() for path in (source, *sorted(source.parent.glob("*.h")))]
    key = hashlib.sha256(b"\0".join([*texts, shlex.join(FLAGS).encode(), macros]))
    return cache_folder() / f"{source.stem}-{key.hexdigest()[:32]}.so"


def load_library(source: Path) -> ctypes.CDLL:
    """Compile, unless it was before, and load.

    Raises:
        BuildError: no compiler, an error of it, or a cache that cannot be written.
    """
    compiler = find_compiler()
    path = cached_path(source, compiler)
    try:
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            # Renamed when it is complete: others may look for it, and write it, at the same time.
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                library = Path(folder) / path.name
                run_compiler(*compiler, *FLAGS, "-shared", source, "-o", library, "-lm")
                library.replace(path)
        return ctypes.CDLL(str(path))
    except OSError as error:
        reason = error.strerror or error
        raise BuildError(f"cannot build {path}: {reason}; set XDG_CACHE_HOME") from error
