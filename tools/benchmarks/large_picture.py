"""Memory of the panoptic and instance results of one large picture, beyond the network's own.

The logits are random. Each query is sure of a thing, so that panoptic results keep all of them and
instances as many as there may be: the worst case.
"""

import argparse
import math
import time

import torch

from benchmarks.measuring import alone, peak_growth
from benchmarks.our_model import Ours, build_model, without_gradients
from benchmarks.tables import Table
from mask2former import device as devices
from mask2former.modeling.maskformer_model import Prediction

NUM_QUERIES, STRIDE, SURE = 200, 4, 10.0
SETTINGS = {
    "MODEL.WEIGHTS": "",
    "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": str(NUM_QUERIES),
    "MODEL.MASK_FORMER.TEST.SEMANTIC_ON": "False",
    "MODEL.MASK_FORMER.TEST.PANOPTIC_ON": "True",
    "MODEL.MASK_FORMER.TEST.INSTANCE_ON": "True",
}
PACK = "MODEL.MASK_FORMER.TEST.PACK_MASKS"
KINDS = {"a byte a pixel": "False", "a bit a pixel": "True"}  # of the instances' masks


def use(device: str, ours: Ours, size: tuple[int, int]) -> tuple[float, float, float]:
    """Bytes of the logits, those held beyond them at most, and seconds, in this process."""
    where = torch.device(device)
    model = build_model(ours.config(device)).eval()
    padded_size = tuple(
        math.ceil(n / model.size_divisibility) * model.size_divisibility for n in size
    )
    num_queries, num_classes = (
        model.sem_seg_head.predictor.query_embed.num_embeddings,
        model.sem_seg_head.num_classes,
    )
    torch.manual_seed(0)
    class_logits = torch.zeros(num_queries, num_classes + 1, device=where)
    things = torch.tensor(sorted(model.thing_classes))  # of which all instances are kept
    class_logits[range(num_queries), things[torch.randint(len(things), (num_queries,))]] = SURE
    mask_logits = torch.randn(num_queries, *(n // STRIDE for n in padded_size), device=where)
    prediction = Prediction(class_logits, mask_logits, padded_size, size)
    seconds = []

    def infer() -> None:
        start = time.perf_counter()
        without_gradients(model.infer)(prediction, size)
        devices.synchronize(where)
        seconds.append(time.perf_counter() - start)

    held = peak_growth(infer, where)
    return mask_logits.numel() * mask_logits.element_size(), held, seconds[0]


def measure(args: argparse.Namespace) -> list[Table]:
    rows = []
    for kind, pack in KINDS.items():
        settings = (word for pair in (SETTINGS | {PACK: pack}).items() for word in pair)
        ours = Ours(args.config_file, (*settings, *args.opts))
        logits, held, seconds = alone(use, args.device, ours, args.size)
        rows.append(
            {
                "masks of instances": kind,
                "held beyond the network's own MB": held / 2**20,
                "the network's mask logits MB": logits / 2**20,
                "s": seconds,
            }
        )
    height, width = args.size
    title = f"Panoptic and instance results of {height}x{width}, all {NUM_QUERIES} queries kept"
    return [Table(title, rows)]
