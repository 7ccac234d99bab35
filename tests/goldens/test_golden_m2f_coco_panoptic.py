"""Mask2Former for all of COCO's tasks: semantic, panoptic and instances from one forward."""

import numpy as np
import pytest
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model
from golden_model import GoldenModel, golden_config, inference_batch, outputs_of_head
from seeding import seed_model

NUM_CLASSES, NUM_THINGS = 133, 80  # the things come first


class TestCocoPanoptic(GoldenModel):
    tag, num_classes = "m2f_coco_panoptic_r50", NUM_CLASSES
    config = "coco/panoptic-segmentation/maskformer2_R50_bs16_50ep.yaml"
    class_stride = 7

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls):
        name = "golden_coco_panoptic"
        MetadataCatalog.get(name).thing_dataset_id_to_contiguous_id = {
            i: i for i in range(NUM_THINGS)
        }
        model = seed_model(build_model(golden_config(cls.config, "DATASETS.TRAIN", (name,))))
        # As in the golden: with such weights no query is sure of anything.
        model.object_mask_threshold = 0.0
        return model

    def test_one_forward_gives_all_three(self, inference):
        for result in inference[1]:
            assert list(result) == ["sem_seg", "panoptic_seg", "instances"]

    def test_panoptic(self, inference, golden):
        for i, result in enumerate(inference[1]):
            segment_map, segments = result["panoptic_seg"]
            rows = [[s["id"], s["category_id"], s["isthing"]] for s in segments]
            np.testing.assert_array_equal(rows, golden[f"panoptic_{i}_segments"])
            differing = (segment_map.numpy() != golden[f"panoptic_{i}"]).mean()
            assert differing < 1e-3  # pixels whose probability is nearly one half

    def test_the_best_instances_are_of_stuff_and_therefore_none(self, inference):
        assert [len(result["instances"]) for result in inference[1]] == [0, 0]

    def test_instances_if_all_classes_were_things(self, model, golden):
        model.thing_classes = frozenset(range(NUM_CLASSES))
        _, results = outputs_of_head(model.eval(), inference_batch())
        model.thing_classes = frozenset(range(NUM_THINGS))
        for i, result in enumerate(results):
            instances = result["instances"]
            best = instances[instances.scores.argsort(descending=True)[:40]]
            np.testing.assert_allclose(best.scores, golden[f"all_{i}_scores"], atol=1e-4)
            np.testing.assert_array_equal(best.pred_classes, golden[f"all_{i}_classes"])
            areas = best.pred_masks.sum((1, 2))
            np.testing.assert_allclose(areas, golden[f"all_{i}_areas"], atol=20)
