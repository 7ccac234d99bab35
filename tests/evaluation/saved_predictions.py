"""What a disturbed perfect model predicts for a dataset, saved while it is judged."""

import json

from detectron2.config import get_cfg
from perfect import evaluate

from mask2former.config import add_maskformer2_config
from mask2former.evaluation import build_evaluator
from mask2former.evaluation.build import SWITCHES
from mask2former.evaluation.predictions.judge import judge_predictions


def config(name, *outputs, judge="fast"):
    cfg = get_cfg()
    add_maskformer2_config(cfg)
    cfg.MODEL.META_ARCHITECTURE = "MaskFormer"
    for output, key in SWITCHES.items():
        cfg.MODEL.MASK_FORMER.TEST[key] = output in outputs
    cfg.DATASETS.TEST = (name,)
    cfg.TEST.SAVE_PREDICTIONS = True
    cfg.TEST.EVALUATOR = judge
    return cfg


def save(cfg, folder, numbers=None, shift=3):
    """Results of the images of these numbers; the predictions are in folder/predictions."""
    (name,) = cfg.DATASETS.TEST
    outputs = [o for o, key in SWITCHES.items() if cfg.MODEL.MASK_FORMER.TEST[key]]
    return evaluate(build_evaluator(cfg, name, str(folder)), name, outputs, numbers, shift)


def judge(cfg, folder):
    return judge_predictions(cfg, cfg.DATASETS.TEST[0], folder, show_progress=False)


def edit(path, change):
    """`change` what a JSON holds, in place."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
