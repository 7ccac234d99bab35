"""Runs of a tiny model on a tiny drawn dataset."""

import sys

import pytest
from tiny_run import datasets, workplace  # noqa: F401


@pytest.fixture
def python_that_only_shows(tmp_path):
    """What tools/dist_train.sh may take for python: prints <its> <arguments>, ends with status 7.

    Only the script that knows other projects' names is really run.
    """
    fake = tmp_path / "python"
    fake.write_text(
        "#!/bin/sh\n"
        f'case $1 in */mm_names.py) exec {sys.executable} "$@" ;; esac\n'
        'for word; do printf "<%s>" "$word"; done\n'
        "exit 7\n"
    )
    fake.chmod(0o755)
    return str(fake)
