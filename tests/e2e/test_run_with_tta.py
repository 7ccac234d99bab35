"""TEST.AUG.ENABLED: a run is evaluated twice, and says both."""

import json

import pytest


def test_training_and_evaluation_with_several_views(workplace):
    views = ("TEST.AUG.ENABLED", True, "TEST.AUG.MIN_SIZES", "(24,32)", "SOLVER.MAX_ITER", 2)
    workplace.main(*views)
    path = workplace.output / "inference_TTA" / "results.json"
    averaged = json.loads(path.read_text())
    assert set(averaged) == set(workplace.results()) == {"sem_seg", "sem_seg_pixel"}
    assert averaged != workplace.results()
    last = json.loads((workplace.output / "metrics.json").read_text().splitlines()[-1])
    for name, results in (("sem_seg", workplace.results()), ("sem_seg_TTA", averaged)):
        assert last[f"{name}/IoU"] == pytest.approx(results["sem_seg"]["IoU"])

    weights = ("MODEL.WEIGHTS", "output/model_final.pth")
    workplace.main("--eval-only", *views, *weights, "OUTPUT_DIR", "one")
    again = workplace.folder / "one" / "inference_TTA" / "results.json"
    assert json.loads(again.read_text()) == averaged
    assert workplace.results("one") == workplace.results()
