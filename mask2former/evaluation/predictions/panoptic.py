"""Panoptic segments as COCO has them: PNGs of segment ids, and a JSON of their categories."""

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from torch import Tensor

from mask2former.evaluation.predictions.format import Format, check_size, no_prediction
from mask2former.evaluation.predictions.png import ADVICE, write_segment_ids
from mask2former.evaluation.segment_ids import read_segment_ids
from mask2former.files import read_json

PNGS = "panoptic"  # panopticapi looks for a folder with the JSON's name
KEYS = ("image_id", "file_name", "segments_info")


class PanopticPngs(Format):
    """panoptic.json, and panoptic/*.png with the names of the images' ids."""

    output = "panoptic_seg"
    entry = f"{PNGS}.json"
    brackets = ('{"annotations": [', "]}")

    def __init__(self, dataset_name: str) -> None:
        super().__init__(dataset_name)
        metadata = MetadataCatalog.get(dataset_name)
        self.things = metadata.thing_dataset_id_to_contiguous_id  # category id -> class
        self.class_of = {**metadata.stuff_dataset_id_to_contiguous_id, **self.things}
        self.category_of = {contiguous: category for category, contiguous in self.class_of.items()}

    def write(self, folder: Path, sample: dict, value: tuple[Tensor, list[dict]]) -> list[dict]:
        ids, segments = value
        name = f"{quote(str(sample['image_id']), safe='')}.png"
        (folder / PNGS).mkdir(exist_ok=True)
        write_segment_ids(folder / PNGS / name, ids.cpu().numpy())
        infos = [
            {"id": segment["id"], "category_id": self.category_of[segment["category_id"]]}
            for segment in segments
        ]
        return [{"image_id": sample["image_id"], "file_name": name, "segments_info": infos}]

    def open(self, folder: Path, samples: Sequence[dict]) -> None:
        self.folder, self.path = folder / PNGS, folder / self.entry
        content = read_json(self.path, ADVICE, ADVICE)
        entries = content.get("annotations") if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise ValueError(f"{self.path}: no list of annotations in it; COCO's format has one")
        self.of_image: dict[int | str, dict] = {}
        for number, entry in enumerate(entries):
            missing = [k for k in KEYS if not isinstance(entry, dict) or k not in entry]
            if missing:
                raise ValueError(
                    f"{self.path}: annotation {number} has no {missing[0]}; COCO's panoptic format "
                    f"has {', '.join(KEYS)}"
                )
            self.of_image[entry["image_id"]] = entry

    def read(self, sample: dict) -> tuple[Tensor, list[dict]]:
        """Segment ids (H,W) int32, and the segments with classes as category_id, and isthing."""
        entry = self.of_image.get(sample["image_id"])
        if entry is None:
            raise no_prediction(self.path, sample["file_name"])
        png = self.folder / entry["file_name"]
        ids = read_segment_ids(str(png), ADVICE)
        check_size(ids.shape, sample, png)
        segments = [self._segment(info, png) for info in entry["segments_info"]]
        painted, listed = _distinct(ids) - {0}, {segment["id"] for segment in segments}
        if painted != listed:
            raise ValueError(
                f"{png}: it shows segments {sorted(painted - listed)} that {self.path} does not "
                f"list, which lists {sorted(listed - painted)} that it does not show; {ADVICE}"
            )
        return torch.from_numpy(ids), segments

    def _segment(self, info: dict, png: Path) -> dict:
        number, category = info.get("id"), info.get("category_id")
        if number is None or category not in self.class_of:
            raise ValueError(
                f"{self.path}: segment {number} of {png.name} is of category {category!r}, which "
                f"{self.dataset_name} does not have; judge it as the dataset that was predicted"
            )
        is_thing = category in self.things
        return {"id": number, "category_id": self.class_of[category], "isthing": is_thing}


def _distinct(ids: np.ndarray) -> set[int]:
    """The values of (H,W). Few pixels differ from those before them, and only these are sorted."""
    flat = ids.ravel()
    return set(np.unique(flat[np.flatnonzero(np.diff(flat, prepend=-1))]).tolist())
