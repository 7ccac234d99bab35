"""What AP and mIoU are measured against where a dataset has panoptic segments only.

Segments do not overlap, so that an object ends where another one hides it. A crowd is no object
that has to be found, but its pixels have their class, as in the datasets' own label maps.
"""

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pycocotools.mask
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.detection_utils import read_image
from detectron2.utils import comm
from panopticapi.utils import rgb2id

from mask2former.evaluation.instances import InstanceSegEvaluator
from mask2former.evaluation.stand_in import stand_in


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
        self._truth: dict[int | str, tuple[dict, list[dict]]] = {}  # COCO's image and annotations

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Keep the "instances" of each image, and read what they are to be compared with.

        Raises:
            ValueError: they have another size than the segments.
        """
        super().process(inputs, outputs)
        for sample, output in zip(inputs, outputs):
            image_id = sample["image_id"]
            truth = self._samples[image_id]
            segment_ids = read_segment_ids(truth["pan_seg_file_name"])
            size = output["instances"].image_size
            if segment_ids.shape != tuple(size):
                raise ValueError(
                    f"{truth['pan_seg_file_name']}: its size is {segment_ids.shape}, and that of "
                    f"the prediction for {truth['file_name']} is {tuple(size)}; check the "
                    "dataset's height and width"
                )
            image = {"id": image_id, "height": size[0], "width": size[1]}
            objects = objects_of_things(segment_ids, truth["segments_info"], self._category)
            self._truth[image_id] = image, objects

    def evaluate(self, img_ids: Sequence | None = None) -> dict[str, dict[str, float]]:
        ranks = comm.gather(self._truth) if self._distributed else [self._truth]
        merged = {image_id: truth for rank in ranks for image_id, truth in rank.items()}
        found = [merged[image_id] for image_id in self._samples if image_id in merged]
        annotations = [{**a, "image_id": image["id"]} for image, objects in found for a in objects]
        self._coco_api.dataset["images"] = [image for image, _ in found]
        self._coco_api.dataset["annotations"] = [
            {**annotation, "id": number} for number, annotation in enumerate(annotations, start=1)
        ]
        with contextlib.redirect_stdout(io.StringIO()):
            self._coco_api.createIndex()
        return super().evaluate(img_ids)


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


def read_segment_ids(path: str) -> np.ndarray:
    """(H,W) int32, of a PNG whose colours are ids as panopticapi has them."""
    return rgb2id(read_image(path, "RGB"))


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
    listed = np.array(sorted({0, *classes}))
    values = np.array([classes.get(i, ignore_label) for i in listed.tolist()], dtype)
    which = np.searchsorted(listed, segment_ids).clip(max=len(listed) - 1)  # (H,W)
    return np.where(listed[which] == segment_ids, values[which], np.array(ignore_label, dtype))


def objects_of_things(
    segment_ids: np.ndarray, segments_info: list[dict], category_of: Mapping[int, int]
) -> list[dict]:
    """COCO's annotations of the segments (H,W) that are things and can be seen.

    Args:
        category_of: contiguous id -> category id, of things only.
    """
    segment_ids = np.asfortranarray(segment_ids)  # as pycocotools wants the masks
    objects = []
    for segment in segments_info:
        if segment["category_id"] not in category_of:
            continue
        rle = pycocotools.mask.encode((segment_ids == segment["id"]).view(np.uint8))
        area = int(pycocotools.mask.area(rle))
        if area > 0:
            objects.append(
                {
                    "category_id": category_of[segment["category_id"]],
                    "segmentation": rle,
                    "area": area,
                    "bbox": pycocotools.mask.toBbox(rle).tolist(),
                    "iscrowd": int(segment.get("iscrowd", 0)),
                }
            )
    return objects
