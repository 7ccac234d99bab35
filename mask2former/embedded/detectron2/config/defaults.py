"""The default config, read from defaults.yaml once."""

from pathlib import Path

import yaml

from .config import CfgNode

# YAML has only lists. The type of a default decides how a merged value is converted and printed.
_TUPLES = (
    "MODEL.RPN.BBOX_REG_WEIGHTS",
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS",
    "MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS",
    "MODEL.ROI_BOX_CASCADE_HEAD.IOUS",
    "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS",
    "MODEL.RETINANET.BBOX_REG_WEIGHTS",
    "INPUT.MIN_SIZE_TRAIN",
    "DATASETS.TRAIN",
    "DATASETS.PROPOSAL_FILES_TRAIN",
    "DATASETS.TEST",
    "DATASETS.PROPOSAL_FILES_TEST",
    "SOLVER.STEPS",
    "TEST.AUG.MIN_SIZES",
)


def _as_tuple(value: object) -> object:
    return tuple(_as_tuple(v) for v in value) if isinstance(value, list) else value


def _read_defaults() -> CfgNode:
    text = Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")
    cfg = CfgNode(yaml.safe_load(text))
    for key in _TUPLES:
        *groups, name = key.split(".")
        node = cfg
        for group in groups:
            node = node[group]
        node[name] = _as_tuple(node[name])
    return cfg


_C = _read_defaults()
