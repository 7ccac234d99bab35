"""The evaluators whose numbers the others have to give: detectron2's, made to fit any dataset."""

import os

import numpy as np
from detectron2.evaluation import COCOPanopticEvaluator, SemSegEvaluator


class ScoresOnlyEvaluator(SemSegEvaluator):
    """SemSegEvaluator that writes no predictions, and so needs no dataset id of every class."""

    def encode_json_sem_seg(self, sem_seg: np.ndarray, input_file_name: str) -> list[dict]:
        return []


class PixelEvaluator(SemSegEvaluator):
    """SemSegEvaluator beside an evaluator whose results are "sem_seg": its own are "sem_seg_pixel".

    The prefix is also that of its metrics in logs: sem_seg_pixel/mIoU, ...
    """

    def evaluate(self) -> dict | None:
        results = super().evaluate()
        return results and {"sem_seg_pixel": results["sem_seg"]}


class PanopticEvaluator(COCOPanopticEvaluator):
    """COCOPanopticEvaluator for images that share a name, as a/1.jpg and b/1.jpg do.

    That one writes the prediction of an image to a file of the image's own name; here it has the
    name of the image's id. And a folder for the results is made when there are some.

    Args:
        dataset_name, output_dir: see COCOPanopticEvaluator.
    """

    def __init__(self, dataset_name: str, output_dir: str | None = None) -> None:
        super().__init__(dataset_name)
        self._output_dir = output_dir

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Keep the "panoptic_seg" of each image, by its "image_id"."""
        names = [str(sample["image_id"]).replace(os.sep, "_") for sample in inputs]
        super().process([s | {"file_name": f"{n}.png"} for s, n in zip(inputs, names)], outputs)

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        if self._output_dir is not None:
            os.makedirs(self._output_dir, exist_ok=True)
        return super().evaluate()
