"""What AP and mIoU are measured against where a dataset has panoptic segments only.

Segments do not overlap, so that an object ends where another one hides it. A crowd is no object
that has to be found, but its pixels have their class, as in the datasets' own label maps.
"""

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import pycocotools.mask
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog

from mask2former.evaluation.instances import InstanceSegEvaluator
from mask2former.evaluation.read_ahead import ReadAhead
from mask2former.evaluation.segment_ids import read_segment_ids
from mask2former.evaluation.stand_in import stand_in
from mask2former.layers.chunks import chunks
from mask2former.layers.run_lengths import encode


class ThingEvaluator(InstanceSegEvaluator):
    """InstanceSegEvaluator whose ground truth is made of the segments that are things.

    Each process reads those of its own images, while these are processed. Only they count.

    Args:
        dataset_name: its dicts have image_id, pan_seg_file_name and segments_info, its metadata
            thing_dataset_id_to_contiguous_id and stuff_classes, the names of all classes.
        options: see InstanceSegEvaluator.
    """

    def __init__(self, dataset_name: str, **options: Any) -> None:
        metadata = MetadataCatalog.get(dataset_name)
        self._samples = {sample["image_id"]: sample for sample in DatasetCatalog.get(dataset_name)}
        file = {image_id: s["pan_seg_file_name"] for image_id, s in self._samples.items()}
        self._true_ids = ReadAhead(list(file), lambda image_id: read_segment_ids(file[image_id]))
        to_contiguous = metadata.thing_dataset_id_to_contiguous_id
        self._category = {contiguous: category for category, contiguous in to_contiguous.items()}
        names = [
            {"id": category, "name": metadata.stuff_classes[contiguous]}
            for category, contiguous in to_contiguous.items()
        ]
        truth = {"images": [], "annotations": [], "categories": names}
        super().__init__(dataset_name, truth=truth, **options)

    def reset(self) -> None:
        super().reset()
        self._true_ids.stop()

    def evaluate(self, img_ids: Iterable[int | str] | None = None) -> OrderedDict | None:
        """See InstanceSegEvaluator."""
        self._true_ids.stop()
        return super().evaluate(img_ids)

    def _look_up(self, sample: dict, size: tuple[int, int]) -> tuple[dict, list[dict]]:
        """The image and its objects, as COCO has them; objects without ids.

        Raises:
            ValueError: the segments have another size than the prediction.
        """
        truth = self._samples[sample["image_id"]]
        (reading,) = self._true_ids(sample["image_id"])
        segment_ids = reading.result()
        if segment_ids.shape != size:
            raise ValueError(
                f"{truth['pan_seg_file_name']}: its size is {segment_ids.shape}, and that of "
                f"the prediction for {truth['file_name']} is {size}; check the dataset's height "
                "and width"
            )
        image = {"id": sample["image_id"], "height": size[0], "width": size[1]}
        return image, objects_of_things(segment_ids, truth["segments_info"], self._category)

    def _truth_for(self, parts: list[tuple[dict, list[dict]]]) -> dict:
        annotations = [{**a, "image_id": image["id"]} for image, objects in parts for a in objects]
        images = [image for image, _ in parts]
        return {**self._truth, "images": images, "annotations": annotations}


@contextlib.contextmanager
def label_maps_of_segments(name: str) -> Iterator[tuple[str, Callable[..., np.ndarray]]]:
    """What a SemSegEvaluator of a panoptic dataset is to be made with, in this block.

    Yields:
        a dataset's name, and the sem_seg_loading_fn.
    """
    samples = DatasetCatalog.get(name)
    load = partial(
        read_class_map,
        segments_of={s["pan_seg_file_name"]: s["segments_info"] for s in samples},
        ignore_label=MetadataCatalog.get(name).ignore_label,
    )
    labelled = [{**s, "sem_seg_file_name": s["pan_seg_file_name"]} for s in samples]
    with stand_in(name, labelled) as other:
        yield other, load


def read_class_map(
    path: str,
    dtype: type = np.int64,
    *,
    segments_of: Mapping[str, list[dict]],
    ignore_label: int,
) -> np.ndarray:
    """(H,W): the class of each pixel, `ignore_label` where no segment is.

    Args:
        segments_of: PNG -> its segments_info.
    """
    segment_ids = read_segment_ids(path)
    classes = {segment["id"]: segment["category_id"] for segment in segments_of[path]}
    # Neighbours are mostly of one segment, so ids are looked up where they change.
    flat = segment_ids.ravel()
    starts = np.append(0, np.flatnonzero(flat[1:] != flat[:-1]) + 1)  # (R,): R runs of equal ids
    seen, which = np.unique(flat[starts], return_inverse=True)
    values = np.array([classes.get(i, ignore_label) for i in seen.tolist()], dtype)
    labels = values[which].repeat(np.diff(starts, append=flat.size))
    return labels.reshape(segment_ids.shape)


def objects_of_things(
    segment_ids: np.ndarray, segments_info: list[dict], category_of: Mapping[int, int]
) -> list[dict]:
    """COCO's annotations of the segments (H,W) that are things and can be seen.

    Args:
        category_of: contiguous id -> category id, of things only.
    """
    things = [segment for segment in segments_info if segment["category_id"] in category_of]
    ids = torch.tensor([segment["id"] for segment in things], dtype=torch.int32)
    pixels = torch.from_numpy(segment_ids)
    masks = []
    for chunk in chunks(len(things), segment_ids.size):
        masks += encode(pixels == ids[chunk, None, None])
    return [
        {
            "category_id": category_of[segment["category_id"]],
            "segmentation": mask,
            "area": int(area),
            "bbox": box.tolist(),
            "iscrowd": int(segment.get("iscrowd", 0)),
        }
        for segment, mask, area, box in zip(
            things, masks, pycocotools.mask.area(masks), pycocotools.mask.toBbox(masks)
        )
        if area > 0
    ]
