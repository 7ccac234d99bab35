"""Write a run's row into the results tables: python tools/fill_results.py OUTPUT_DIR

The row is made from what the run has left: config.yaml, metrics.json and log.txt. It goes into the
table between `<!-- results:mask2former -->` (or `maskformer`, whichever the model is) and
`<!-- /results -->` of each document, in the place of rows without a measurement, and of one of the
same devices, model, precision, batch size and iterations. The columns of a table:
    devices | model | mixed precision | batch size | iterations | train loss (median of the last
    20) | s / iteration (median of all) | validation | torch / torch_sdaa
"""

import argparse
import re
import sys
from pathlib import Path

import numpy as np
import yaml

from mask2former.curves import Run, read_run
from mask2former.curves.read import LOG_FILE, SCORES, SECONDS, TOTAL_LOSS
from mask2former.files import atomic_file

DOCS = [Path(__file__).parents[1] / "docs" / name for name in ("sdaa.md", "sdaa.zh.md")]
DEVICE, NUM_COLUMNS = "sdaa", 9
KEY, MEASURED = slice(0, 5), 6  # columns that tell rows apart, and one that only a measured row has
LAST = 20  # iterations
DECODERS = {
    "MultiScaleMaskedTransformerDecoder": "Mask2Former",
    "StandardTransformerDecoder": "MaskFormer",
}
WORDS = {False: ["yes", "no", "unknown"], True: ["是", "否", "未知"]}  # in a Chinese document


def where_it_ran(log: str, device: str) -> tuple[str, list[str]]:
    """From log.txt: "NUMBER × DEVICE", and the versions of torch and its plugin, "" if unknown.

    Raises:
        ValueError: it was not on such a device.
    """
    found = re.findall(r"(\d+) process\(es\) on (\w+)(?::\d+)?(.*)", log)
    if not found:
        raise ValueError(f"{LOG_FILE} does not say on what the run was; run it again")
    num, device_type, details = found[-1]  # resumed runs say it again
    if device_type != device or "simulated" in details.lower():
        raise ValueError(
            f"the run was on {device_type}{details}, but the tables are of real {device} devices; "
            "run it there, or name what it was on with --device"
        )
    known = re.match(r" \((.*?)(?:, )?(?:torch_\w+ (\S+))?\), \d+ visible", details)
    name, plugin = known.groups("") if known else ("", "")
    versions = re.findall(r"^(?:torch|PyTorch) +(\d\S*)", log, re.MULTILINE)[-1:] or [""]
    if plugin or device == DEVICE:  # others may need none
        versions.append(plugin)
    return f"{num} × {name or device_type}", versions


def row(cfg: dict, run: Run, devices: str, versions: list[str], words: list[str]) -> list[str]:
    """The cells.

    Raises:
        ValueError: no iteration was timed, or there is no table of such models.
    """
    model, head = cfg["MODEL"], cfg["MODEL"]["SEM_SEG_HEAD"]["NAME"]
    decoder = model["MASK_FORMER"]["TRANSFORMER_DECODER_NAME"]
    if head != "MaskFormerHead" or decoder not in DECODERS:
        raise ValueError(f"no table of models with {head}, {decoder}; it has {list(DECODERS)}")
    if SECONDS not in run:
        raise ValueError("the run was too short to be timed; train for 10 iterations at least")
    is_swin, depth = "Swin" in model["BACKBONE"]["NAME"], model["RESNETS"]["DEPTH"]
    iterations, losses = run[TOTAL_LOSS]
    num_done = int(iterations[-1]) + 1
    seconds = float(np.median(run[SECONDS].values))
    scores = [f"{k} {x.values[-1]:.2f}" for k, x in run.items() if k.startswith(tuple(SCORES))]
    return [
        devices,
        f"{DECODERS[decoder]} {'Swin' if is_swin else f'R{depth}'}",
        words[0] if cfg["SOLVER"]["AMP"]["ENABLED"] else words[1],
        str(cfg["SOLVER"]["IMS_PER_BATCH"]),
        str(num_done),
        f"{np.median(losses[iterations >= num_done - LAST]):.4f}",
        f"{seconds:.3f} ({seconds * num_done / 3600:.1f} h)",
        ", ".join(scores) or "–",
        " / ".join(version or words[2] for version in versions),
    ]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def filled(text: str, new: list[str]) -> str:
    """The document with the row in its table.

    Raises:
        ValueError: there is no such table.
    """
    begin, end = f"<!-- results:{new[1].split()[0].lower()} -->", "<!-- /results -->"
    parts = re.fullmatch(rf"(.*{begin}\s*?\n)(.*?)(\n*{end}.*)", text, re.DOTALL)
    lines = parts.group(2).strip().splitlines() if parts else []
    if len(lines) < 2 or any(len(cells(line)) != NUM_COLUMNS for line in lines):
        raise ValueError(f"no table of {NUM_COLUMNS} columns between {begin} and {end}; restore it")
    rows = [cells(line) for line in lines[2:]]
    kept = [x for x in rows if re.search(r"\d", x[MEASURED]) and x[KEY] != new[KEY]]
    body = "\n".join([*lines[:2], *(f"| {' | '.join(x)} |" for x in [*kept, new])])
    return f"{parts.group(1)}{body}{parts.group(3)}"


def fill(folder: Path, docs: list[Path], device: str) -> list[str]:
    """Write the run's row into all documents, or into none; returns the first one's cells."""
    needed = [folder / "config.yaml", folder / LOG_FILE, *docs]
    for path in needed:
        if not path.is_file():
            found = "a folder" if path.is_dir() else "no such file"
            raise FileNotFoundError(f"{path}: {found}; name an OUTPUT_DIR, and files as --docs")
    config, log, *texts = (path.read_text("utf-8") for path in needed)
    cfg, run = yaml.safe_load(config), read_run(str(folder))
    devices, versions = where_it_ran(log, device)
    rows = [row(cfg, run, devices, versions, WORDS[x.name.endswith(".zh.md")]) for x in docs]
    new_texts = {}
    for doc, text, new in zip(docs, texts, rows):
        try:
            new_texts[doc] = filled(text, new)
        except ValueError as error:
            raise ValueError(f"{doc}: {error}") from error
    for doc, text in new_texts.items():
        with atomic_file(doc) as temporary:
            temporary.write_text(text, "utf-8")
    return rows[0]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="OUTPUT_DIR")
    parser.add_argument(
        "--docs", type=Path, nargs="+", metavar="FILE", default=DOCS, help="files, else both pages"
    )
    parser.add_argument("--device", default=DEVICE, help="type of device that the tables are of")
    args = parser.parse_args()
    try:
        new = fill(args.run, args.docs, args.device)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print(f"| {' | '.join(new)} |", *(f"written into {doc}" for doc in args.docs), sep="\n")


if __name__ == "__main__":
    main()
