"""The findings about a dataset as text."""

from tabulate import tabulate

from mask2former.data.check.dataset import Findings
from mask2former.data.problems import by_kind


def report(findings: Findings, max_listed: int = 10) -> str:
    """Faults and warnings of each kind, the classes, and whether all that is fit for training.

    Args:
        max_listed: of one kind; of the others only the number is told.
    """
    lines = [f"{findings.name}: {len(findings.samples)} samples, {len(findings.classes)} classes"]
    for is_fatal, word in ((True, "fault"), (False, "warning")):
        chosen = [p for p in findings.problems if p.is_fatal == is_fatal]
        for kind, found in by_kind(chosen).items():
            lines.append(f"{word}: {kind} ({len(found)})")
            lines += [f"  {problem.text}" for problem in found[:max_listed]]
            if len(found) > max_listed:
                lines.append(f"  ... and {len(found) - max_listed} more")
    if findings.classes:
        lines.append(class_table(findings))
    lines.append("fit for training" if findings.is_fit else "not fit for training")
    return "\n".join(lines)


def class_table(findings: Findings) -> str:
    """Of each class the pictures that show it, its masks and its pixels."""
    all_pixels = sum(findings.num_pixels.values()) or 1
    num_samples = len(findings.samples) or 1
    rows = []
    for index, name in enumerate(findings.classes):
        images, pixels = findings.num_images[index], findings.num_pixels[index]
        rows.append(
            (
                index,
                name,
                images,
                f"{images / num_samples:.1%}",
                findings.num_objects[index],
                pixels,
                f"{pixels / all_pixels:.2%}",
            )
        )
    headers = ("", "class", "images", "of all", "masks", "pixels", "of all")
    return tabulate(
        rows, headers, disable_numparse=[3, 6], colalign=["right", "left"] + 5 * ["right"]
    )
