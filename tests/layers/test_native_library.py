"""When C code is compiled, where the library is kept, and what is said where that fails."""

import logging
import runpy
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mask2former.layers.ms_deform_attn import build_ms_deform_attn, native, native_library
from mask2former.layers.ms_deform_attn.native import Native
from mask2former.layers.ms_deform_attn.native_library import BuildError, load_library

ROOT = Path(__file__).parents[2]
COMPILER = next(filter(None, map(shutil.which, native_library.COMPILERS)), None)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty one; and no compiler is configured."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CC", raising=False)
    return tmp_path / "cache" / "mask2former"


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "answer.c"
    path.write_text("int answer(void) { return 42; }\n")
    return path


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """A configured one that notes what it is asked; and a function that gives that."""
    wrapper, log = tmp_path / "noting compiler", tmp_path / "log"
    wrapper.write_text(f'#!/bin/sh\necho "$*" >> "{log}"\nexec "{COMPILER}" "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("CC", f"'{wrapper}'")
    return lambda: [line for line in log.read_text().splitlines() if "-shared" in line]


def test_it_is_compiled_once(source, compiler, cache):
    assert load_library(source).answer() == 42
    assert load_library(source).answer() == 42
    assert len(compiler()) == 1
    (library,) = cache.iterdir()  # nothing else is left there
    assert library.name.startswith("answer-") and library.suffix == ".so"


def test_another_source_or_compiler_is_another_library(source, compiler, cache, monkeypatch):
    load_library(source)
    source.write_text("int answer(void) { return 43; }\n")
    assert load_library(source).answer() == 43
    assert len(list(cache.iterdir())) == 2
    source.with_name("answer.h").write_text("enum { ANSWER = 44 };\n")
    source.write_text('#include "answer.h"\nint answer(void) { return ANSWER; }\n')
    assert load_library(source).answer() == 44
    source.with_name("answer.h").write_text("enum { ANSWER = 45 };\n")
    assert load_library(source).answer() == 45
    assert len(list(cache.iterdir())) == 4
    monkeypatch.setenv("CC", f"{COMPILER} -D__VERSION__='\"another\"' -w")
    load_library(source)
    monkeypatch.setenv("CC", f"{COMPILER} -DFOR_ANOTHER_CPU")
    load_library(source)
    monkeypatch.setattr(native_library, "FLAGS", (*native_library.FLAGS, "-O1"))
    load_library(source)
    assert len(list(cache.iterdir())) == 7


def test_several_processes_may_start_at_once(source, compiler, cache):
    script = (
        "import pathlib, runpy, sys; load = runpy.run_path(sys.argv[1])['load_library']; "
        "print(load(pathlib.Path(sys.argv[2])).answer())"
    )
    command = [sys.executable, "-c", script, native_library.__file__, str(source)]
    with ThreadPoolExecutor(4) as pool:
        runs = pool.map(lambda _: subprocess.run(command, capture_output=True, text=True), range(4))
        assert {(run.stdout, run.stderr) for run in runs} == {("42\n", "")}
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize("configured", ["", "/nonexistent", "no-such-compiler -O1"])
def test_no_compiler(configured, source, tmp_path, monkeypatch):
    monkeypatch.setenv("CC", configured)
    monkeypatch.setenv("PATH", str(tmp_path))
    expected = "no C compiler (cc, gcc, clang) on PATH; set CC"
    if configured:
        expected = f"no C compiler CC={configured.split()[0]}; set CC to one, or to nothing"
    with pytest.raises(BuildError) as error:
        load_library(source)
    assert str(error.value) == expected


def test_a_command_that_does_not_end(source, monkeypatch):
    monkeypatch.setenv("CC", "'cc -O1")
    with pytest.raises(BuildError, match="CC='cc -O1 is no command: No closing quotation"):
        load_library(source)


@pytest.mark.parametrize("name", native_library.COMPILERS)
def test_each_compiler_is_found(name, source, tmp_path, monkeypatch):
    (tmp_path / name).symlink_to(COMPILER)
    found = shutil.which
    monkeypatch.setattr(shutil, "which", lambda command: found(command, path=str(tmp_path)))
    assert native_library.find_compiler() == [str(tmp_path / name)]


def test_an_error_of_the_compiler_is_told_in_one_line(source):
    source.write_text("int answer(void) {\n  return unknown;\n}\n")
    with pytest.raises(BuildError) as error:
        load_library(source)
    message = str(error.value)
    assert message.startswith(f"the C compiler {COMPILER} failed: {source}:2:")
    assert "error: " in message and "unknown" in message and "\n" not in message


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("#!/bin/sh\nexit 3\n", "the C compiler {} failed: status 3"),
        ("#!/no/such/shell\n", "cannot run the C compiler {}: No such file or directory"),
    ],
)
def test_a_broken_compiler(text, reason, source, tmp_path, monkeypatch):
    broken = tmp_path / "broken"
    broken.write_text(text)
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    with pytest.raises(BuildError) as error:
        load_library(source)
    assert str(error.value) == reason.format(broken)


def test_a_cache_that_cannot_be_written(source, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(source))
    with pytest.raises(BuildError, match=r"cannot build .*: Not a directory; set XDG_CACHE_HOME"):
        load_library(source)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    with pytest.raises(BuildError, match="no home folder to keep a library in; set XDG_CACHE_HOME"):
        load_library(source)


def test_a_library_that_cannot_be_loaded(source, cache):
    load_library(source)
    (library,) = cache.iterdir()
    other = source.with_name("other.c")
    other.write_text(source.read_text())
    damaged = native_library.cached_path(other, native_library.find_compiler())
    damaged.write_text("no library")
    with pytest.raises(BuildError, match=f"cannot build {damaged}: .*; set XDG_CACHE_HOME"):
        load_library(other)
    assert library.is_file()


def test_without_a_compiler_another_op_is_chosen_and_the_log_says_why(monkeypatch, caplog):
    monkeypatch.setenv("CC", "/nonexistent")
    monkeypatch.setattr(native, "kernels", native.kernels.__wrapped__)
    build_ms_deform_attn.cache_clear()
    with caplog.at_level(logging.INFO, logger="mask2former"):
        assert build_ms_deform_attn("auto", "cpu") is not Native
        build_ms_deform_attn("auto", "cpu")
    (message,) = [record.getMessage() for record in caplog.records]
    assert "not Native: no C compiler CC=/nonexistent; set CC to one, or to nothing" in message
    with pytest.raises(
        ValueError, match=r"'Native' does not run on cpu \(no C compiler .*\); set the key to"
    ):
        build_ms_deform_attn("Native", "cpu")
    build_ms_deform_attn.cache_clear()


def test_the_source_is_installed(monkeypatch):
    given = {}
    monkeypatch.setattr("setuptools.setup", lambda **options: given.update(options))
    runpy.run_path(str(ROOT / "setup.py"))
    folder = Path(native.__file__).parent
    assert {path.name for path in folder.glob("*.[ch]")} == {"native.c", "native_kernels.h"}
    assert {"*.c", "*.h"} <= set(given["package_data"][""])
