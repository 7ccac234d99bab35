"""Panoptic Quality, of datasets whose pictures may lie in several folders."""

import os

from detectron2.evaluation import COCOPanopticEvaluator


class PanopticEvaluator(COCOPanopticEvaluator):
    """COCOPanopticEvaluator for images that share a name, as a/1.jpg and b/1.jpg do.

    That one writes the prediction of an image to a file of the image's own name. Here it has the
    name of the image's id.
    """

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Keep the "panoptic_seg" of each image, by its "image_id"."""
        names = [str(sample["image_id"]).replace(os.sep, "_") for sample in inputs]
        super().process([s | {"file_name": f"{n}.png"} for s, n in zip(inputs, names)], outputs)
