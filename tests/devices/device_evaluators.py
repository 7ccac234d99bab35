"""What evaluators count on a device: imported for the CPU, run as a script on the simulated one.

    python device_evaluators.py FILE

writes the numbers into FILE, for torch.load.
"""

import sys

import mask2former  # noqa: F401  isort: skip
import panoptic_cases
import torch

from mask2former import device as devices
from mask2former.evaluation.cityscapes_instances import regions_of, shared_pixels
from mask2former.evaluation.confusion import class_counts, pair_counts, predicted_labels
from mask2former.evaluation.panoptic_quality import joint_histogram
from mask2former.layers import run_lengths
from mask2former.layers.packed_masks import PackedMasks

SIZE, NUM_CLASSES = (40, 56), 7


def numbers(device):
    """Counts of each evaluator, by its task."""
    ((true_ids, truths, ids, segments),) = panoptic_cases.draw_pairs(3, num_images=1, size=SIZE)
    lists = [[segment["id"] for segment in s] for s in (truths, segments)]
    maps = [torch.from_numpy(x).to(device) for x in (true_ids, ids)]
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(NUM_CLASSES, *SIZE, generator=generator).to(device)
    truth = torch.randint(NUM_CLASSES + 1, SIZE, generator=generator).to(device)  # the last: void
    labels = predicted_labels(scores)
    masks = torch.stack([maps[1] == i for i in lists[1]])
    regions = regions_of((true_ids // 977).astype("uint16"))
    shared = [
        shared_pixels(m, regions.number, len(regions.ids)) for m in (masks, PackedMasks.pack(masks))
    ]
    return {
        "panoptic": joint_histogram(*maps, *lists).tolist(),
        "semantic": class_counts(truth, labels, NUM_CLASSES).tolist(),
        "pairs": pair_counts(truth, labels, NUM_CLASSES + 1, NUM_CLASSES).tolist(),
        "Cityscapes instances": [pixels.tolist() for pixels in shared],
        "run lengths": [run_lengths.encode(m) for m in (masks, PackedMasks.pack(masks))],
    }


if __name__ == "__main__":
    where = devices.resolve_device("auto")
    assert where.type != "cpu", where
    torch.save(numbers(where), sys.argv[1])
