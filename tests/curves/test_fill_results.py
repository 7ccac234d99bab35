"""A run's row gets into the tables of both languages, or into none."""

import json
import runpy
from pathlib import Path

import pytest
import torch
from detectron2.config import get_cfg

from mask2former.config import add_maskformer2_config
from mask2former.engine.output import open_log

TOOL = str(Path(__file__).parents[2] / "tools" / "fill_results.py")
HEAD = (
    "| devices | model | mixed precision | batch size | iterations | train loss | s / iteration "
    "| validation | torch / torch_sdaa |\n|---|---|---|---|---|---|---|---|---|\n"
)
ZOO_ROW = "| 4 | Mask2Former R50 | yes | 16 | 395 | 59.1 | 18 | – | 2.0 |\n"
EMPTY_ROW = "| 4 | Mask2Former R50 | yes | 16 | 90000 | not yet measured on the device | | | |\n"
DOC = f"""# SDAA
<!-- results:mask2former -->
{HEAD}{ZOO_ROW}{EMPTY_ROW}<!-- /results -->

Between 1 | 2.
<!-- results:maskformer -->
{HEAD}{EMPTY_ROW}<!-- /results -->
The end.
"""
ON_DEVICE = " on sdaa (Card 7, torch_sdaa 2.1.1b0+git), 4 visible (SDAA_VISIBLE_DEVICES=0,1,2,3)"
ROW = (
    "| 4 × Card 7 | Mask2Former R50 | {} | 16 | 30 | 10.5000 | 2.000 (0.0 h) | mIoU 40.25 | "
    "2.4.0 / 2.1.1b0+git |"
)


@pytest.fixture
def cfg(tmp_path):
    cfg = get_cfg()
    add_maskformer2_config(cfg)
    cfg.OUTPUT_DIR = str(tmp_path / "run")
    cfg.MODEL.RESNETS.DEPTH = 50
    cfg.MODEL.SEM_SEG_HEAD.NAME = "MaskFormerHead"
    cfg.MODEL.BACKBONE.NAME = "build_resnet_backbone"
    cfg.SOLVER.AMP.ENABLED = True
    return cfg


@pytest.fixture
def docs(tmp_path):
    paths = [tmp_path / "sdaa.md", tmp_path / "sdaa.zh.md"]
    for path in paths:
        path.write_text(DOC, "utf-8")
    return paths


def lines_of(loss=30.0, num=30):
    for i in range(num):
        yield {"iteration": i, "total_loss": loss - i, "data_time": 0.1}
        if i > 2:
            yield {"iteration": i, "time": 1.0 + (i % 3)}
        if i in (9, num - 1):
            yield {"iteration": i, "sem_seg/IoU": 40.25 if i > 9 else 10.0}


@pytest.fixture
def fill(cfg, docs, run_tool):
    """The tool on a run with this config: exit code, stdout, stderr."""

    def run(where=ON_DEVICE, *words, lines=None):
        folder = Path(cfg.OUTPUT_DIR)
        folder.mkdir(exist_ok=True)
        (folder / "config.yaml").write_text(cfg.dump())
        lines = lines_of() if lines is None else lines
        (folder / "metrics.json").write_text("".join(json.dumps(x) + "\n" for x in lines))
        said = "[11/21] mask2former.engine.output INFO: {} process(es){}\n-----\ntorch    {} in x\n"
        (folder / "log.txt").write_text(
            said.format(1, " on cpu", "2.3") + "---\n" + said.format(4, where, "2.4.0")
        )
        code, out, err = run_tool("fill_results.py", folder, "--docs", *docs, *words)
        return code or 0, out, err

    return run


def table(doc, name="mask2former"):
    text = doc.read_text("utf-8")
    return text.split(f"<!-- results:{name} -->\n{HEAD}")[1].split("<!-- /results -->")[0]


def test_the_row_takes_the_place_of_what_is_not_measured(fill, docs):
    code, out, err = fill()
    written = f"written into {docs[0]}\nwritten into {docs[1]}\n"
    assert (code, out, err) == (0, f"{ROW.format('yes')}\n{written}", "")
    assert table(docs[0]) == f"{ZOO_ROW}{ROW.format('yes')}\n"
    assert table(docs[1]) == f"{ZOO_ROW}{ROW.format('是')}\n"
    for doc in docs:
        text = doc.read_text("utf-8")
        assert table(doc, "maskformer") == EMPTY_ROW
        assert text.startswith("# SDAA\n") and text.endswith("The end.\n")
        assert "Between 1 | 2.\n" in text


def test_the_same_run_again_replaces_its_row_and_another_is_added(fill, docs, cfg):
    fill()
    once = docs[0].read_text("utf-8")
    fill()
    assert docs[0].read_text("utf-8") == once
    cfg.SOLVER.AMP.ENABLED = False
    fill()
    assert table(docs[0]) == f"{ZOO_ROW}{ROW.format('yes')}\n{ROW.format('no')}\n"
    assert table(docs[1]).endswith(f"{ROW.format('否')}\n")


def test_maskformer_without_scores_and_without_a_name(fill, docs, cfg):
    cfg.MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME = "StandardTransformerDecoder"
    cfg.MODEL.RESNETS.DEPTH = 101
    lines = [x for x in lines_of() if "sem_seg/IoU" not in x]
    assert fill(" on sdaa, 1 visible", lines=lines)[0] == 0
    assert table(docs[0], "maskformer") == (
        "| 4 × sdaa | MaskFormer R101 | yes | 16 | 30 | 10.5000 | 2.000 (0.0 h) | – | "
        "2.4.0 / unknown |\n"
    )
    assert table(docs[1], "maskformer").endswith(" | 2.4.0 / 未知 |\n")
    assert EMPTY_ROW in table(docs[0])


def test_a_device_by_its_index_is_named_too(fill, docs):
    assert fill(" on sdaa:2 (Card 7, torch_sdaa 2.1.1b0+git), 4 visible")[0] == 0
    assert table(docs[0]) == f"{ZOO_ROW}{ROW.format('yes')}\n"


@pytest.mark.parametrize(
    "where, words, found",
    [
        (" on cpu", [], "the run was on cpu, but the tables are of real sdaa devices; run it"),
        (" on cuda (H200), 1 visible", [], "the run was on cuda (H200), 1 visible, but the"),
        (" on sdaa (simulated SDAA 0), 4 visible", [], "but the tables are of real sdaa devices"),
        (" on zpu (Simulated), 1 visible", ["--device", "zpu"], "are of real zpu devices"),
    ],
)
def test_runs_on_other_devices_are_refused(fill, docs, where, words, found):
    code, out, err = fill(where, *words)
    assert code == 2 and found in err and not out and err.count("\n") == 1
    assert [doc.read_text("utf-8") for doc in docs] == [DOC, DOC]


def test_on_another_device_if_the_tables_are_of_it(fill, docs):
    assert fill(" on cuda (H200), 4 visible", "--device", "cuda")[0] == 0
    last = table(docs[0]).splitlines()[-1]
    assert last.startswith("| 4 × H200 | Mask2Former R50 | ") and last.endswith(" | 2.4.0 |")


@pytest.mark.parametrize(
    "change, found",
    [
        (
            lambda text: text.replace("<!-- results:mask2former -->\n", ""),
            "sdaa.zh.md: no table of 9",
        ),
        (
            lambda text: text.replace("<!-- /results -->", "", 1),
            "sdaa.zh.md: no table of 9 columns",
        ),
        (lambda text: text.replace(" | validation", ""), "sdaa.zh.md: no table of 9 columns"),
    ],
)
def test_a_document_without_the_table_keeps_all_as_they_were(fill, docs, change, found):
    docs[1].write_text(change(DOC), "utf-8")
    code, _, err = fill()
    assert code == 2 and found in err and "restore it" in err
    assert [doc.read_text("utf-8") for doc in docs] == [DOC, change(DOC)]


def test_what_no_row_can_be_made_of_is_said(fill, docs, cfg):
    code, _, err = fill(lines=[{"iteration": 0, "total_loss": 1.0, "data_time": 0.1}])
    assert code == 2 and "the run was too short to be timed; train for 10 iterations" in err
    cfg.MODEL.SEM_SEG_HEAD.NAME = "PerPixelBaselineHead"
    assert "no table of models with PerPixelBaselineHead, " in fill()[2]
    docs[0].unlink()
    assert "sdaa.md: no such file; name an OUTPUT_DIR, and files as --docs" in fill()[2]


def test_a_folder_for_a_document_is_said_to_be_one(fill, docs):
    docs[1].unlink()
    docs[1].mkdir()
    assert fill()[::2] == (
        2,
        f"{docs[1]}: a folder; name an OUTPUT_DIR, and files as --docs\n",
    )
    assert docs[0].read_text("utf-8") == DOC
    code, out, _ = fill(ON_DEVICE, "--help")
    assert code == 0 and "files, else both pages" in out and "--docs FILE [FILE ...]" in out


def test_a_log_without_any_version():
    where_it_ran = runpy.run_path(TOOL)["where_it_ran"]
    assert where_it_ran("4 process(es) on sdaa\n", "sdaa") == ("4 × sdaa", ["", ""])
    assert where_it_ran("4 process(es) on zpu\n", "zpu") == ("4 × zpu", [""])


def test_a_runs_log_says_what_the_tool_looks_for(cfg):
    cfg.MODEL.DEVICE = "cpu"
    open_log(cfg)
    log = Path(cfg.OUTPUT_DIR, "log.txt").read_text("utf-8")
    assert "1 process(es) on cpu\n" in log
    tool = runpy.run_path(TOOL)
    devices, versions = tool["where_it_ran"](log, "cpu")
    assert devices == "1 × cpu" and versions[0].startswith(torch.__version__)
