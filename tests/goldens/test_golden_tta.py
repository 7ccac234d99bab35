"""Test-time augmentation on the official implementation's weights and image gives its scores."""

import numpy as np
from detectron2.modeling import build_model
from golden_model import golden_config
from seeding import seed_model, seeded_image

from mask2former import SemanticSegmentorWithTTA

SMALL = (
    *("MODEL.RESNETS.DEPTH", 18),
    *("MODEL.RESNETS.RES2_OUT_CHANNELS", 64),
    *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 5),
    *("MODEL.SEM_SEG_HEAD.CONVS_DIM", 64),
    *("MODEL.SEM_SEG_HEAD.MASK_DIM", 32),
    *("MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS", 2),
    *("MODEL.MASK_FORMER.HIDDEN_DIM", 64),
    *("MODEL.MASK_FORMER.NUM_OBJECT_QUERIES", 10),
    *("MODEL.MASK_FORMER.DIM_FEEDFORWARD", 128),
    *("MODEL.MASK_FORMER.DEC_LAYERS", 4),
    *("MODEL.MASK_FORMER.TEST.PANOPTIC_ON", False),
    *("MODEL.MASK_FORMER.TEST.INSTANCE_ON", False),
    *("TEST.AUG.MIN_SIZES", (48, 64, 81)),
    *("TEST.AUG.MAX_SIZE", 110),
    *("TEST.AUG.FLIP", True),
)
# [:, 5::20, 7::29] of what the official SemanticSegmentorWithTTA gives for this model.
SCORES = [
    [
        [0.04617, 0.04132, 0.04757, 0.04962],
        [0.04897, 0.04693, 0.04813, 0.05009],
        [0.04515, 0.04147, 0.04394, 0.04822],
        [0.05198, 0.04735, 0.04954, 0.04711],
    ],
    [
        [0.13150, 0.11748, 0.13552, 0.14101],
        [0.13932, 0.13384, 0.13691, 0.14227],
        [0.12864, 0.11890, 0.12524, 0.13701],
        [0.14792, 0.13514, 0.14144, 0.13394],
    ],
    [
        [4.19973, 3.78859, 4.30337, 4.52259],
        [4.46661, 4.23024, 4.34708, 4.56023],
        [4.11055, 3.68071, 3.90570, 4.37418],
        [4.70857, 4.21381, 4.40731, 4.26438],
    ],
    [
        [1.73523, 1.56313, 1.78923, 1.87345],
        [1.84516, 1.77096, 1.80943, 1.89549],
        [1.69114, 1.54755, 1.64486, 1.82251],
        [1.95395, 1.77467, 1.86878, 1.77867],
    ],
    [
        [1.41623, 1.28334, 1.45868, 1.53188],
        [1.50063, 1.44392, 1.47408, 1.54508],
        [1.38899, 1.24902, 1.33438, 1.48173],
        [1.59379, 1.43571, 1.50866, 1.43233],
    ],
]


def test_semantic_scores_are_the_official_ones():
    config = "coco/panoptic-segmentation/maskformer2_R50_bs16_50ep.yaml"
    cfg = golden_config(config, *SMALL)
    model = seed_model(build_model(cfg)).eval()
    sample = {"image": seeded_image(64, 96, 0), "height": 70, "width": 101}
    (result,) = SemanticSegmentorWithTTA(cfg, model)([sample])
    assert list(result) == ["sem_seg"] and result["sem_seg"].shape == (5, 70, 101)
    np.testing.assert_allclose(result["sem_seg"][:, 5::20, 7::29], SCORES, atol=1e-4)
