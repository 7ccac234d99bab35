"""What a perfect model would predict for a dataset, and the config that has it evaluated."""

import json

import numpy as np
import pycocotools.mask as mask_util
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances
from panopticapi.utils import rgb2id
from PIL import Image

from mask2former.config import add_maskformer2_config

SWITCHES = {"sem_seg": "SEMANTIC_ON", "instances": "INSTANCE_ON", "panoptic_seg": "PANOPTIC_ON"}


def config(*outputs, judge="fast"):
    cfg = get_cfg()
    add_maskformer2_config(cfg)
    cfg.MODEL.META_ARCHITECTURE = "MaskFormer"
    cfg.TEST.EVALUATOR = judge
    for output, key in SWITCHES.items():
        cfg.MODEL.MASK_FORMER.TEST[key] = output in outputs
    return cfg


def read(path):
    return np.asarray(Image.open(path)).astype(np.int64)


def semantic(sample, metadata):
    """Scores (K,H,W); class 0 where the ground truth is ignored."""
    if "sem_seg_file_name" in sample:
        labels = read(sample["sem_seg_file_name"])
        labels[labels == metadata.ignore_label] = 0
    else:
        ids = rgb2id(np.asarray(Image.open(sample["pan_seg_file_name"])))
        labels = np.zeros(ids.shape, np.int64)
        for segment in sample["segments_info"]:
            labels[ids == segment["id"]] = segment["category_id"]
    classes = np.arange(len(metadata.stuff_classes))[:, None, None]
    return torch.from_numpy((labels == classes).astype(np.float32))


def panoptic(sample, metadata):
    """The map of segments, without the crowds, and the segments."""
    ids = rgb2id(np.asarray(Image.open(sample["pan_seg_file_name"]))).astype(np.int32)
    things = metadata.thing_dataset_id_to_contiguous_id.values()
    segments = [
        {
            "id": s["id"],
            "category_id": s["category_id"],
            "isthing": s.get("isthing", s["category_id"] in things),
        }
        for s in sample["segments_info"]
        if not s["iscrowd"]
    ]
    ids[~np.isin(ids, [s["id"] for s in segments])] = 0
    return torch.from_numpy(ids), segments


def instances(sample, metadata):
    """Every object, from the annotations file, the dict, or the panoptic segments."""
    size = (sample["height"], sample["width"])
    json_file = metadata.get("json_file")
    found = []  # (contiguous class, mask)
    if json_file:
        with open(json_file) as file:
            annotations = json.load(file)["annotations"]
        ids = metadata.thing_dataset_id_to_contiguous_id
        for a in annotations:
            if a["image_id"] == sample["image_id"] and not a.get("iscrowd"):
                found.append((ids[a["category_id"]], decode(a["segmentation"], size)))
    elif "annotations" in sample:
        for a in sample["annotations"]:
            if not a["iscrowd"]:
                found.append((a["category_id"], decode(a["segmentation"], size)))
    else:
        segment_ids, segments = panoptic(sample, metadata)
        things = [s for s in segments if s["isthing"]]
        found = [(s["category_id"], (segment_ids == s["id"]).numpy()) for s in things]
    result = Instances(size)
    masks = np.array([mask for _, mask in found]).reshape(-1, *size).astype(bool)
    result.pred_masks = torch.from_numpy(masks)
    result.pred_classes = torch.tensor([c for c, _ in found], dtype=torch.int64)
    result.scores = torch.linspace(1, 0.5, len(found))
    result.pred_boxes = Boxes(torch.tensor([box(mask) for mask in masks]).reshape(-1, 4).float())
    return result


def decode(segmentation, size):
    if isinstance(segmentation, list) or isinstance(segmentation["counts"], list):
        segmentation = mask_util.frPyObjects(segmentation, *size)
    if isinstance(segmentation, list):
        segmentation = mask_util.merge(segmentation)
    return mask_util.decode(segmentation) > 0


def box(mask):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return [0, 0, 0, 0]
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def move(prediction, shift):
    for output, value in prediction.items():
        if output == "sem_seg":
            prediction[output] = value.roll(shift, -1)
        elif output == "instances":
            value.pred_masks = value.pred_masks.roll(shift, -1)
            value.pred_boxes.tensor[:, ::2] += shift
        else:
            prediction[output] = (value[0].roll(shift, -1), value[1])
    return prediction


PREDICT = {"sem_seg": semantic, "panoptic_seg": panoptic, "instances": instances}


def evaluate(evaluator, name, outputs, numbers=None, shift=0):
    """Reset, predict the images of these numbers, all by default, and evaluate.

    The predictions are moved to the right by `shift` pixels.
    """
    metadata = MetadataCatalog.get(name)
    samples = DatasetCatalog.get(name)
    evaluator.reset()
    for i in range(len(samples)) if numbers is None else numbers:
        sample = samples[i]
        if "height" not in sample:  # which a mapper adds
            height, width = read(sample["file_name"]).shape[:2]
            sample = {**sample, "height": height, "width": width}
        prediction = {output: PREDICT[output](sample, metadata) for output in outputs}
        evaluator.process([sample], [move(prediction, shift)])
    return evaluator.evaluate()
