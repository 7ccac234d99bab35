"""Inference and a training step: our model against transformers' and against our reference paths.

All have the same weights and pictures, and their turns in every round.
"""

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks import our_model, transformers_model
from benchmarks.measuring import alone, interleaved, peak_gb, spread, times_as_fast
from benchmarks.our_model import Ours
from benchmarks.pictures import Picture, read_pictures
from benchmarks.tables import Cell, Table
from benchmarks.transformers_model import Theirs

FLOAT32 = ("SOLVER.AMP.ENABLED", "False", "TEST.AMP.ENABLED", "False")
MIXED = ("SOLVER.AMP.ENABLED", "True", "TEST.AMP.ENABLED", "True")
OURS = {
    "ours": FLOAT32,
    "ours-mixed": MIXED,
    "ours-compiled": (*FLOAT32, "MODEL.COMPILE", "True"),
    "ours-mixed-compiled": (*MIXED, "MODEL.COMPILE", "True"),
    "reference": (*FLOAT32, "MODEL.SEM_SEG_HEAD.MS_DEFORM_ATTN", "Reference"),
}
THEIRS = {
    "transformers": {},
    "transformers-mixed": {"half": True},
    "transformers-compiled": {"compiled": True},
    "transformers-mixed-compiled": {"half": True, "compiled": True},
}
CONTENDERS = (*OURS, *THEIRS)
DEFAULT = ("ours", "ours-mixed", "reference", "transformers")
COMPARED = "ours"  # with whose results those of all others are compared
BASES = ("transformers", "reference")  # against which speeds are given

WORK = ("inference", "training step")

Model = Ours | Theirs
Builder = Callable[..., Callable]


def builder(model: Model, work: str) -> Builder:
    module = our_model if isinstance(model, Ours) else transformers_model
    return {"inference": module.inference, "training step": module.training_step}[work]


def described(args: argparse.Namespace) -> tuple[dict[str, Model], list[str]]:
    """The contenders that can be measured, and of the others why they cannot.

    Raises:
        ValueError: there is no contender of a name.
    """
    # Weights that are given last count.
    common = ("MODEL.WEIGHTS", "", *args.opts)
    cfg = Ours(args.config_file, common).config(args.device)
    wanted = args.contenders or DEFAULT
    for name in wanted:
        if name not in CONTENDERS:
            raise ValueError(f"--contenders: no {name!r}; name some of {', '.join(CONTENDERS)}")
    models: dict[str, Model] = {
        name: Ours(args.config_file, (*common, *OURS[name])) for name in wanted if name in OURS
    }
    asked = [name for name in wanted if name in THEIRS]
    why = transformers_model.why_not(cfg) if asked else ""
    if why:
        return models, [f"transformers is left out: {why}."]
    theirs = transformers_model.describe(cfg) if asked else None
    return models | {name: theirs._replace(**THEIRS[name]) for name in asked}, []


def compare(
    models: dict[str, Model], work: str, device: str, pictures: list[Picture], repeat: int
) -> dict[str, list[float]]:
    """Seconds of each model in each round, in this process."""
    weights = shared_weights(models, device)
    runs = {
        name: builder(model, work)(device, model, pictures, weights)
        for name, model in models.items()
    }
    return interleaved(runs, repeat, torch.device(device), work)


def shared_weights(models: dict[str, Model], device: str) -> dict[str, Tensor] | None:
    """Those of the first of our models, which all others get."""
    ours = [model for model in models.values() if isinstance(model, Ours)]
    return our_model.build_model(ours[0].config(device)).state_dict() if ours else None


def results(
    models: dict[str, Model], device: str, pictures: list[Picture]
) -> dict[str, dict[str, Tensor]]:
    """Of each model its logits and class maps, on the CPU."""
    weights = shared_weights(models, device)
    found = {}
    for name, model in models.items():
        if isinstance(model, Ours):
            network = our_model.build_model(model.config(device), weights).eval()
            batch = our_model.as_batch(pictures)
            predict = our_model.without_gradients(network.predict)
            classes, masks = zip(*((p.class_logits, p.mask_logits) for p in predict(batch)))
            maps = [x.get("sem_seg") for x in our_model.without_gradients(network)(batch)]
        else:
            network = transformers_model.TheirModel(device, model, pictures, weights)
            network.network.eval()
            classes, masks = network.predict()
            maps = network.infer()
        found[name] = {
            "class": torch.stack(list(classes)).float().cpu(),
            "mask": torch.stack(list(masks)).float().cpu(),
        }
        if maps[0] is not None:
            found[name]["argmax"] = torch.stack([scores.argmax(0) for scores in maps]).cpu()
    return found


def differences(
    models: dict[str, Model], device: str, pictures: list[Picture]
) -> list[dict[str, Cell]]:
    """How far the results of each model are from those of the first, in this process."""
    found = results(models, device, pictures)
    base = found[COMPARED if COMPARED in found else next(iter(found))]
    rows = []
    for name, own in found.items():
        row: dict[str, Cell] = {"model": name}
        for kind in ("class", "mask"):
            far = (own[kind] - base[kind]).abs().max() / base[kind].abs().max()
            row[f"{kind} logits: largest difference / largest"] = float(far)
        if "argmax" in own and "argmax" in base:
            others = (own["argmax"] != base["argmax"]).double().mean()
            row["pixels of another class %"] = 100 * float(others)
            row["classes there are"] = own["argmax"].unique().numel()
        rows.append(row)
    return rows


def measure(args: argparse.Namespace) -> list[Table]:
    models, notes = described(args)
    cfg = Ours(args.config_file, ("MODEL.WEIGHTS", "", *args.opts)).config(args.device)
    pictures = read_pictures(args, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)
    rows = []
    for work in (w for w in WORK if w.startswith(args.work or "")):
        seconds = alone(compare, models, work, args.device, pictures, args.repeat)
        for name, model in models.items():
            row = {"work": work, "model": name, **spread(seconds[name])}
            for base in BASES:
                row[f"times as fast as {base}"] = times_as_fast(seconds[name], seconds.get(base))
            row["peak GB"] = alone(peak_gb, builder(model, work), args.device, model, pictures)
            rows.append(row)
    height, width = pictures[0].image.shape[-2:]
    title = f"Whole model: {len(pictures)} image(s) of {height}x{width}, {args.num_targets} targets"
    tables = [Table(title, rows, tuple(notes))]
    if len(models) > 1:
        far = alone(differences, models, args.device, pictures)
        tables.append(Table(f"Results, compared with those of {far[0]['model']}", far))
    return tables
