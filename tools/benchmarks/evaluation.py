"""Our evaluators beside the tools whose numbers they give, on the same predictions.

Pictures are the project's drawn streets, predictions the disturbed ground truth. A tool is given
the files that it wants, and writing them is not counted as its time, unless it is said; ours is
given what a model puts out. All work in one process. The scores have to be the same, or there is no
table.
"""

import argparse
import contextlib
import io
import json
import statistics
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pycocotools.mask
import torch
from PIL import Image
from pycocotools.coco import COCO
from torch import Tensor
from tqdm import tqdm, trange

from benchmarks import reference_evaluation
from benchmarks.drawn_predictions import disturbed_mask, disturbed_objects
from benchmarks.drawn_streets import NAME, NUM_INSTANCES, Street, draw_streets
from benchmarks.measuring import interleaved, spread, times_as_fast
from benchmarks.our_model import Ours, inference
from benchmarks.pictures import random_picture
from benchmarks.tables import Cell, Table
from mask2former.data.mini.coco import make_mini_coco
from mask2former.data.mini.maker import MiniSpec

# isort: split
from cityscapesscripts.helpers.labels import name2label, trainId2label
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from panopticapi.utils import id2rgb

from mask2former.evaluation.cityscapes import CityscapesSemSegEvaluator
from mask2former.evaluation.cityscapes_instances import CityscapesInstanceEvaluator
from mask2former.evaluation.coco_ap import average_precision, find_judge
from mask2former.evaluation.panoptic import PanopticEvaluator
from mask2former.layers import run_lengths

NUM_IMAGES = 2
COCO_SIZE, NUM_COCO_DRAWN, NUM_COCO_IMAGES = (480, 640), 4, 100
TOLERANCE = 1e-6  # percent points

Scores = dict[str, float]


class Contest(NamedTuple):
    """The same work done by a tool and by us; what both give is compared by its names."""

    title: str
    num_images: int
    tool: str
    runs: dict[str, Callable[[], Scores]]  # the tool's first


def judged(evaluator: DatasetEvaluator, streets: list[Street], outputs: list[dict]) -> Scores:
    """What one of our evaluators gives of its task."""
    evaluator.reset()
    for street, output in zip(streets, outputs):
        evaluator.process([street.sample], [output])
    (scores,) = evaluator.evaluate().values()
    return scores


def semantic_contests(streets: list[Street], folder: Path, device: str) -> list[Contest]:
    """Of labels, and of a model's scores, from which the tool's files have to be made first."""
    label_ids = np.array([trainId2label[i].id for i in range(19)], np.uint8)
    files = [folder / f"{number}_labels.png" for number in range(len(streets))]

    def write(of_images: list[np.ndarray]) -> None:
        for file, labels in zip(files, of_images):
            Image.fromarray(label_ids[labels]).save(file)

    write([street.labels for street in streets])
    labels = [torch.from_numpy(street.labels).to(device) for street in streets]
    scores = [torch.zeros(19, *x.shape, device=device) for x in labels]
    for of_image, x in zip(scores, labels):
        of_image.scatter_(0, x[None].long(), 1.0)
    truth = [street.gt_files["labelIds"] for street in streets]
    ours = CityscapesSemSegEvaluator(NAME)

    def theirs() -> Scores:
        return reference_evaluation.cityscapes_pixels(files, truth)

    def theirs_of_scores() -> Scores:
        write([of_image.argmax(0).cpu().numpy() for of_image in scores])
        return theirs()

    def contest(title: str, tool: Callable[[], Scores], outputs: list[Tensor]) -> Contest:
        runs = {
            "cityscapesscripts": tool,
            "ours": lambda: judged(ours, streets, [{"sem_seg": x} for x in outputs]),
        }
        return Contest(f"semantic, Cityscapes, {title}", len(streets), "cityscapesscripts", runs)

    return [
        contest("of labels", theirs, labels),
        contest("of scores", theirs_of_scores, scores),
    ]


def instance_contest(streets: list[Street], folder: Path, device: str) -> Contest:
    names = MetadataCatalog.get(NAME).thing_classes
    files = []
    for number, street in enumerate(tqdm(streets, desc="writing masks", leave=False)):
        files.append(folder / f"{number}.txt")
        lines = []
        found = street.instances
        for i, (mask, label, score) in enumerate(
            zip(found.pred_masks.numpy(), found.pred_classes.tolist(), found.scores.tolist())
        ):
            Image.fromarray(mask.view(np.uint8)).save(folder / f"{number}_{i}.png")
            lines.append(f"{number}_{i}.png {name2label[names[label]].id} {score}\n")
        files[-1].write_text("".join(lines))
    truth = [street.gt_files["instanceIds"] for street in streets]
    outputs = [{"instances": street.instances.to(device)} for street in streets]
    ours = CityscapesInstanceEvaluator(NAME)
    return Contest(
        f"instances, Cityscapes, {NUM_INSTANCES} an image",
        len(streets),
        "cityscapesscripts",
        {
            "cityscapesscripts": lambda: reference_evaluation.cityscapes_instances(files, truth),
            "ours": lambda: judged(ours, streets, outputs),
        },
    )


def panoptic_contest(streets: list[Street], folder: Path, device: str) -> Contest:
    metadata = MetadataCatalog.get(NAME)
    things, stuff = (
        metadata.thing_dataset_id_to_contiguous_id,
        metadata.stuff_dataset_id_to_contiguous_id,
    )
    outputs, annotations = [], []
    (folder / "predicted").mkdir()
    for number, street in enumerate(streets):
        ids, segments = street.panoptic
        file_name = f"{number}.png"
        Image.fromarray(id2rgb(ids)).save(folder / "predicted" / file_name)
        image_id = street.sample["image_id"]
        annotations.append(
            {"image_id": image_id, "file_name": file_name, "segments_info": segments}
        )
        of_model = [
            {
                "id": segment["id"],
                "category_id": (things | stuff)[segment["category_id"]],
                "isthing": segment["category_id"] in things,
            }
            for segment in segments
        ]
        map_of_ids = torch.from_numpy(ids.astype(np.int32)).to(device)
        outputs.append({"panoptic_seg": (map_of_ids, of_model)})
    predicted = folder / "predicted.json"
    predicted.write_text(json.dumps({"annotations": annotations}))
    truth = Path(metadata.panoptic_json)
    ours = PanopticEvaluator(NAME)
    return Contest(
        "panoptic, Cityscapes",
        len(streets),
        "a loop like panopticapi's",
        {
            "a loop like panopticapi's": lambda: reference_evaluation.panoptic_quality(
                truth, predicted
            ),
            "ours": lambda: judged(ours, streets, outputs),
        },
    )


def coco_contests(folder: Path, device: str) -> list[Contest]:
    """Average precision of a list of results, and how their masks become run lengths."""
    spec = MiniSpec(*COCO_SIZE, num_train=1, num_val=NUM_COCO_DRAWN)
    make_mini_coco(folder, spec, num_test=0)
    path = folder / "coco" / "annotations" / "instances_val2017.json"
    drawn = json.loads(path.read_text("utf-8"))
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = COCO(path)
    truth = {"images": [], "annotations": [], "categories": drawn["categories"]}
    masks, results = [], []
    for image_id in trange(1, NUM_COCO_IMAGES + 1, desc="predicting", leave=False):
        rng = np.random.default_rng(image_id)
        image = drawn["images"][image_id % len(drawn["images"])]  # each many times, as others
        objects = dataset.imgToAnns[image["id"]]
        truth["images"].append({**image, "id": image_id})
        for thing in objects:
            number = len(truth["annotations"]) + 1
            truth["annotations"].append({**thing, "image_id": image_id, "id": number})
        things = [thing for thing in objects if not thing["iscrowd"]]
        true_masks = [dataset.annToMask(thing).astype(bool) for thing in things]
        classes = [thing["category_id"] for thing in things]
        found = disturbed_objects(classes, NUM_INSTANCES, sorted(set(classes)), rng)
        if not found:
            continue
        of_image = np.array([disturbed_mask(true_masks[index], rng) for index, _, _ in found])
        encoded = run_lengths.encode(torch.from_numpy(of_image))
        results += [
            {"image_id": image_id, "category_id": label, "score": score, "segmentation": rle}
            for (_, label, score), rle in zip(found, encoded)
        ]
        masks += [torch.from_numpy(of_image).to(device)] if len(masks) < NUM_COCO_DRAWN else []
    ours = f"ours, by {find_judge(fast=True).name}"
    return [
        Contest(
            f"COCO AP of masks, {NUM_INSTANCES} an image",
            NUM_COCO_IMAGES,
            "pycocotools",
            {
                "pycocotools": lambda: reference_evaluation.coco_masks(truth, results),
                ours: lambda: average_precision(truth, results, "segm"),
            },
        ),
        Contest(
            f"run lengths of {NUM_INSTANCES} masks an image",
            len(masks),
            "pycocotools",
            {
                "pycocotools": lambda: checksum([_encode(x) for x in masks]),
                "ours": lambda: checksum([run_lengths.encode(x) for x in masks]),
            },
        ),
    ]


def _encode(masks: Tensor) -> list[dict]:
    """As detectron2 does: mask by mask, on the host."""
    return [
        pycocotools.mask.encode(np.array(mask[:, :, None], order="F", dtype=np.uint8))[0]
        for mask in masks.cpu()
    ]


def checksum(images: list[list[dict]]) -> Scores:
    counts = b" ".join(rle["counts"] for encoded in images for rle in encoded)
    return {"checksum": float(zlib.crc32(counts))}


def compare(contest: Contest, repeat: int, device: str) -> list[dict[str, Cell]]:
    """A row of each.

    Raises:
        ValueError: their scores differ.
    """
    found: dict[str, Scores] = {}
    processor: dict[str, list[float]] = {name: [] for name in contest.runs}  # seconds, all threads

    def keeping(name: str, run: Callable[[], Scores]) -> Callable[[], None]:
        def keep() -> None:
            start = time.process_time()
            found[name] = run()
            processor[name].append((time.process_time() - start) / contest.num_images)

        return keep

    runs = {name: keeping(name, run) for name, run in contest.runs.items()}
    seconds = interleaved(runs, repeat, torch.device(device), contest.title)
    rows = []
    for name, own in seconds.items():
        far = largest_difference(found[contest.tool], found[name])
        if not far < TOLERANCE:
            raise ValueError(
                f"{contest.title}: what {name} gives differs from what {contest.tool} gives by "
                f"{far:.3g}; times of different results are not compared, report this"
            )
        rows.append(
            {
                "work": contest.title,
                "by": name,
                **spread([s / contest.num_images for s in own], "ms"),
                "times as fast as the tool": times_as_fast(own, seconds[contest.tool]),
                "processor ms": 1000 * statistics.median(processor[name][1:]),
                "times less": times_as_fast(processor[name][1:], processor[contest.tool][1:]),
                "largest difference": far,
            }
        )
    return rows


def largest_difference(theirs: Scores, ours: Scores) -> float:
    """Of scores that both have; where one is NaN, so has to be the other."""
    names = theirs.keys() & ours.keys()
    values = np.array([[scores[name] for name in names] for scores in (theirs, ours)])
    if not names or (np.isnan(values[0]) != np.isnan(values[1])).any():
        return float("inf")
    return float(np.nan_to_num(np.abs(values[0] - values[1])).max())


def forward_seconds(args: argparse.Namespace) -> float:
    """Of the config's model, for one picture."""
    pictures = [random_picture(args.size, 0, 1, seed=0)]
    ours = Ours(args.config_file, ("MODEL.WEIGHTS", "", *args.opts))
    run = {"forward": inference(args.device, ours, pictures)}
    seconds = interleaved(run, args.repeat, torch.device(args.device), "forward pass")
    return statistics.median(seconds["forward"])


def measure(args: argparse.Namespace) -> list[Table]:
    """
    Raises:
        ValueError: scores differ.
    """
    with tempfile.TemporaryDirectory(prefix="evaluation") as name:
        folder, device = Path(name), args.device
        streets = draw_streets(folder, args.size, NUM_IMAGES)
        contests = [
            *semantic_contests(streets, folder, device),
            instance_contest(streets, folder, device),
            panoptic_contest(streets, folder, device),
            *coco_contests(folder, device),
        ]
        rows = [row for contest in contests for row in compare(contest, args.repeat, device)]
    height, width = args.size
    forward = forward_seconds(args)
    own = [row for row in rows if row["by"].startswith("ours") and "Cityscapes" in row["work"]]
    shares = ", ".join(
        f"{row['work'].split(',')[0]} {row['median ms'] / 10 / forward:.2g} %"
        for row in own
        if "of labels" not in row["work"]
    )
    extension = "" if reference_evaluation.HAS_C_EXTENSION else "out"
    notes = (
        f"cityscapesscripts is with{extension} its C extension, numpy is {np.__version__}; much of "
        "what the tools do is numpy's sorting, which has become faster.",
        "Processor ms are those of all threads, whatever else this machine does.",
        f"A forward pass of {args.config_file} takes {1000 * forward:.0f} ms; of that, judging an "
        f"image takes: {shares}.",
    )
    title = f"Evaluation, an image of {height}x{width} (COCO: {COCO_SIZE[0]}x{COCO_SIZE[1]})"
    return [Table(title, rows, notes)]
