"""Tables of figures: for the console in Markdown, so that they can be pasted, and for JSON."""

import json
import os
import platform
from pathlib import Path
from typing import NamedTuple

import torch
from tabulate import tabulate

Cell = float | int | str | None


class Table(NamedTuple):
    """A title, and rows of the same columns; a column's name ends with its unit."""

    title: str
    rows: list[dict[str, Cell]]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        cells = [[told(cell) for cell in row.values()] for row in self.rows]
        headers = list(self.rows[0]) if self.rows else ()
        table = tabulate(cells, headers=headers, tablefmt="github", disable_numparse=True)
        return "\n".join([self.title, "", table, "", *self.notes])


def told(cell: Cell) -> str:
    """Three digits of a number, all of a whole one; nothing for what is not known."""
    if cell is None:
        return "–"
    if not isinstance(cell, float):
        return str(cell)
    if cell == 0 or 1e-3 <= abs(cell) < 1e6:
        return f"{cell:.0f}" if abs(cell) >= 100 else f"{cell:.3g}"
    return f"{cell:.1e}"


def processor() -> str:
    """What the CPU calls itself, as far as it can be read."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def machine() -> dict[str, Cell]:
    """What figures depend on, without a name of the host."""
    return {
        "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def write_json(path: Path, about: dict, tables: list[Table]) -> None:
    """Every figure of the tables, unrounded, and what they depend on."""
    figures = [{"title": t.title, "rows": t.rows, "notes": t.notes} for t in tables]
    path.write_text(json.dumps({**about, "tables": figures}, indent=2) + "\n", "utf-8")
