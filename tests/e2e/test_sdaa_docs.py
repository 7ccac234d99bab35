"""docs/sdaa.md and docs/sdaa.zh.md: their commands are right, and the same in both."""

import ast
import os
import re
import runpy
import shlex
import subprocess
import sys

import pytest
from source_files import ROOT, parse

from mask2former.config import flat_keys, load_config
from mask2former.engine import argument_parser

PAGES = [ROOT / "docs" / name for name in ("sdaa.md", "sdaa.zh.md")]
TEXTS = [page.read_text("utf-8") for page in PAGES]
MAX_PICTURE = 100_000  # bytes


def blocks(text):
    """The commands, as they stand between ``` and ```; those in lists are indented."""
    found = re.findall(r"^( *)```sh\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    return [re.sub(f"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]


def commands():
    """Words of each command, without what becomes of its output."""
    for block in blocks(TEXTS[0]):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.partition(" 2>&1 |")[0])
            if words[0] != "export":
                yield words


def test_both_languages_have_the_same_commands_and_sections():
    english, chinese = (blocks(text) for text in TEXTS)
    assert len(english) > 10
    assert english == chinese
    levels = [re.findall(r"^(#+ \d?)", text, re.MULTILINE) for text in TEXTS]
    assert levels[0] == levels[1]
    rows = [len(re.findall(r"^\|", text, re.MULTILINE)) for text in TEXTS]
    assert rows[0] == rows[1]


def test_what_the_commands_name_is_there():
    files = {word for words in commands() for word in words[1:2] if "/" in word or "." in word}
    assert {"train_net.py", "tools/fill_results.py"} < files
    assert [name for name in files if not (ROOT / name).exists() and name != "."] == []


RUNS = [
    shlex.join(words)
    for words in commands()
    if words[1] in ("train_net.py", "tools/dist_train.sh") or words[1].startswith("run_scripts/")
]


@pytest.mark.parametrize("line", RUNS)
def test_runs_are_of_configs_and_keys_that_there_are(line, python_that_only_shows):
    words = shlex.split(line)
    if words[1] != "train_net.py":  # what they print ends in a command of train_net.py
        words[0] = {"python": sys.executable}.get(words[0], words[0])
        if words[1].startswith("run_scripts/"):
            words.append("--dry-run")
        done = subprocess.run(
            words,
            cwd=ROOT,
            env=os.environ | {"PYTHON": python_that_only_shows, "SDAA_VISIBLE_DEVICES": ""},
            capture_output=True,
            text=True,
        )
        assert not done.stderr
        printed = [x for x in done.stdout.splitlines() if not x.startswith(("#", "<"))]
        words = shlex.split(printed[-1])
    place = next(i for i, word in enumerate(words) if word.endswith("train_net.py"))
    args = argument_parser().parse_args(words[place + 1 :])
    assert load_config(args.config_file, args.opts).SOLVER.MAX_ITER > 0


@pytest.mark.parametrize("text", TEXTS, ids=("en", "zh"))
def test_keys_in_the_text_are_ours(text):
    cfg = load_config("quick_start.yaml")
    named = set(re.findall(r"\b[A-Z][A-Z0-9_]*(?:\.[A-Z0-9_]+)+\b", text))
    assert len(named) > 10
    assert named - set(flat_keys(cfg)) == set()


def test_options_and_translated_keys_are_all_listed(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "run_scripts"))
    import mm_names
    import model_zoo

    options = {
        option
        for action in model_zoo.argument_parser("any.yaml")._actions
        for option in action.option_strings
        if option.startswith("--") and "_" not in option
    } - {"--help", "--config-file"}
    for text in TEXTS:
        rows = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
        listed = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
        said = {option for name in listed for option in re.findall(r"--[a-z-]+", name)}
        assert options <= said
        ends = tuple(name for name in listed if name.startswith("."))
        keys = {*mm_names.KEYS, *mm_names.PER_PROCESS}
        short = {key for key in keys if key.startswith("optimizer.")}  # mmengine's older spelling
        assert [k for k in keys - listed - short if not k.endswith(ends)] == []


def test_links_lead_somewhere_and_pictures_are_small():
    for page, text in zip(PAGES, TEXTS):
        targets = re.findall(r"\]\(([^)#]+)\)", text)
        assert targets
        for target in targets:
            file = page.parent / target
            assert file.is_file(), target
            assert file.suffix != ".png" or file.stat().st_size < MAX_PICTURE
        anchors = set(re.findall(r"\]\(#([^)]+)\)", text))
        headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        assert anchors <= {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}


def test_what_is_installed_by_hand_is_what_setup_wants():
    (required,) = (
        ast.literal_eval(node.value)
        for node in ast.walk(parse(ROOT / "setup.py"))
        if isinstance(node, ast.keyword) and node.arg == "install_requires"
    )
    names = {re.match(r"[\w-]+", requirement)[0] for requirement in required}
    (listed,) = (words[2:] for words in commands() if words[:3] == ["pip", "install", "numpy"])
    assert set(listed) == names - {"torch"}


@pytest.mark.parametrize("text", TEXTS, ids=("en", "zh"))
@pytest.mark.parametrize("model, num_rows", [("Mask2Former R50", 2), ("MaskFormer R50", 1)])
def test_a_measured_row_takes_the_place_of_the_empty_one(text, model, num_rows):
    filled = runpy.run_path(str(ROOT / "tools/fill_results.py"))["filled"]
    row = ["4 × card", model, "yes", "16", "30", "1.5", "2.000 (0.0 h)", "mIoU 1", "2.4 / 1"]
    table = re.search(rf"<!-- results:{model.split()[0].lower()} -->\n(.*?)<!--", text, re.DOTALL)
    after = filled(text, row)
    new_table = re.search(rf"results:{model.split()[0].lower()} -->\n(.*?)<!--", after, re.DOTALL)
    lines, new_lines = (found[1].strip().splitlines() for found in (table, new_table))
    assert len(lines) == len(new_lines) == 2 + num_rows
    assert lines[:-1] == new_lines[:-1]  # the head, and what is published
    assert new_lines[-1] == f"| {' | '.join(row)} |"
