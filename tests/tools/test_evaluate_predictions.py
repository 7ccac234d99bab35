"""tools/evaluate_predictions.py gives the numbers of the run that saved the predictions."""

import json
import shutil
import sys

import evaluate_predictions
import pytest
import torch
from detectron2.modeling import build_model
from drawn_shapes import write_panoptic

from mask2former.config import load_config

SAVE = ("TEST.SAVE_PREDICTIONS", "True")
# Small pictures as they are, and as many iterations as the shapes take to be found.
LEARN = (
    *("INPUT.CROP.ENABLED", "False", "INPUT.COLOR_AUG_SSD", "False"),
    *("INPUT.MIN_SIZE_TRAIN", "(48,)", "INPUT.MIN_SIZE_TEST", "48"),
    *("SOLVER.MAX_ITER", "30", "SOLVER.BASE_LR", "0.003"),
)


@pytest.fixture
def tool(monkeypatch, capsys):
    """The tool as a function of its arguments: what it wrote into a JSON, and said at the end."""

    def run(*words):
        words = ["--config-file", "config.yaml", "--json", "judged/all.json", "--quiet", *words]
        monkeypatch.setattr(sys, "argv", ["evaluate_predictions.py", *map(str, words)])
        capsys.readouterr()
        evaluate_predictions.main()
        with open("judged/all.json") as file:
            return json.load(file), capsys.readouterr().out.splitlines()[-1]

    return run


def use(workplace, config):
    path = workplace.folder / "config.yaml"
    path.write_text(path.read_text().replace("configs/quick_start.yaml", f"configs/{config}"))


def untrained():
    """Options for weights as they are drawn."""
    model = build_model(load_config("config.yaml"))
    torch.save({"model": model.state_dict()}, "weights.pth")
    return "--eval-only", "MODEL.WEIGHTS", "weights.pth"


def said_of(capsys, what):
    return [line.split(what)[1] for line in capsys.readouterr().out.splitlines() if what in line]


def test_cityscapes_with_and_without_several_views(workplace, tool, capsys):
    views = ("TEST.AUG.ENABLED", "True", "TEST.AUG.MIN_SIZES", "(24,32)")
    workplace.main(*SAVE, *views, "SOLVER.MAX_ITER", 1)
    said = said_of(capsys, "Validation: ")[-1]
    found, line = tool("--predictions", "output/inference")
    assert found == workplace.results() and found["sem_seg"]["IoU"] > 0
    averaged, _ = tool("--predictions", "output/inference_TTA/predictions")
    folder = workplace.output / "inference_TTA"
    assert averaged == json.loads((folder / "results.json").read_text()) != found
    assert line.startswith("Validation: mIoU") and line.removeprefix("Validation: ") in said

    # Without the weights, and judged by the scripts themselves.
    (workplace.output / "model_final.pth").unlink()
    by_scripts, _ = tool("--predictions", "output/inference", "TEST.EVALUATOR", "reference")
    assert by_scripts["sem_seg"] == pytest.approx(found["sem_seg"], abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("config", ["quick_start_instance.yaml", "quick_start_panoptic.yaml"])
def test_other_tasks_of_cityscapes(workplace, tool, config):
    use(workplace, config)
    workplace.main(*untrained(), *SAVE)
    found, _ = tool("--predictions", "output/inference/predictions")
    assert found == workplace.results() and "segm" in found


def test_a_users_own_data(workplace, tool):
    """PQ, AP and mIoU, none of them trivial; the predictions may be carried elsewhere."""
    use(workplace, "quick_start_panoptic.yaml")
    names = [write_panoptic(workplace.folder / part, seed=i) for i, part in enumerate("tv")]
    names = [name.replace(f"{workplace.folder}/", "") for name in names]
    data = "DATASETS.TRAIN", names[0], "DATASETS.TEST", names[1]
    workplace.main(*data, *LEARN, *SAVE)
    results = workplace.results()
    scores = [results[t][m] for t, m in (("panoptic_seg", "PQ"), ("segm", "AP"))]
    assert min(*scores, results["sem_seg"]["mIoU"]) > 10
    (folder,) = (workplace.output / "inference" / "predictions").iterdir()
    shutil.move(folder, workplace.folder / "carried")
    shutil.rmtree(workplace.folder / "t")
    found, line = tool("--predictions", "carried", *data)
    assert found == results
    assert line.startswith("Validation: PQ ") and ", AP " in line and ", mIoU " in line


def test_several_datasets_are_judged_by_name(workplace, tool):
    names = [f"mini_cityscapes_fine_sem_seg_{split}" for split in ("train", "val")]
    data = ("DATASETS.TEST", str(tuple(names)))
    workplace.main(*untrained(), *data, *SAVE)
    found, line = tool("--predictions", "output/inference", *data)
    assert found == workplace.results() and list(found) == names
    assert all(f"{name}: mIoU" in line for name in names)


def test_a_mistake_is_one_sentence(workplace, tool, capsys):
    for words, sentence in (
        (("--predictions", "nowhere"), "nowhere: no folder mini_cityscapes_fine_sem_seg_val in it"),
        (("--predictions", "."), "no predictions of mini_cityscapes_fine_sem_seg_val, which would"),
        (("--predictions", ".", "TEST.EVALUATOR", "best"), "TEST.EVALUATOR='best'; set it to"),
        (("--predictions", ".", "DATASETS.TEST", "street"), "unknown dataset street"),
        (("--predictions", ".", "TEST.JUDGE", "fast"), "unknown config key TEST.JUDGE"),
    ):
        with pytest.raises(SystemExit) as error:
            tool(*words)
        said = capsys.readouterr().err
        assert error.value.code == 1 and "Traceback" not in said
        assert sentence in said.splitlines()[-1]
