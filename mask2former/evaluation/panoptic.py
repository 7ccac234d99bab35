"""Panoptic Quality, of datasets whose pictures may lie in several folders."""

import os

from detectron2.evaluation import COCOPanopticEvaluator


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
