"""Rows of the result: shown as a table, written to build/bench.json."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

_BUILD = Path(__file__).resolve().parents[2] / "build"


@dataclass
class Row:
    """A row of the result.

    Args:
        name: What was measured.
        value: The figure.
        unit: Its unit.
        reference: What it is compared with, measured in the same run; None: nothing.
        ratio: value / reference.
        wanted: The figure asked for; None: none.
        met: Whether it was reached.
    """

    name: str
    value: float
    unit: str
    reference: float | None = None
    ratio: float | None = None
    wanted: float | None = None
    met: bool | None = None


def row(
    name: str,
    value: float,
    unit: str,
    *,
    reference: float | None = None,
    wanted: float | None = None,
    below: bool = False,
) -> Row:
    """Makes a row.

    Args:
        name: What was measured.
        value: The figure.
        unit: Its unit.
        reference: What it is compared with, measured in the same run.
        wanted: The figure asked for.
        below: Whether it is asked for at most, and not at least.
    """
    met = None if wanted is None else (value <= wanted if below else value >= wanted)
    return Row(name, round(value, 3), unit, reference, round(value / reference, 3) if reference else None, wanted, met)


def show(rows: list[Row], console: Console) -> None:
    """Prints and writes rows."""
    table = Table(box=None, pad_edge=False)
    for column in ("what", "value", "unit", "reference", "ratio", "wanted", "met"):
        table.add_column(column, justify="left" if column in {"what", "unit"} else "right")
    for each in rows:
        cells = [f"{each.value:,.2f}".rstrip("0").rstrip("."), each.unit]
        cells += ["" if cell is None else f"{cell:,.2f}" for cell in (each.reference, each.ratio, each.wanted)]
        table.add_row(each.name, *cells, {None: "", True: "yes", False: "NO"}[each.met])
    console.print(table)
    _BUILD.mkdir(exist_ok=True)
    (_BUILD / "bench.json").write_text(json.dumps([asdict(each) for each in rows], indent=1))
    console.print("build/bench.json is written.")
