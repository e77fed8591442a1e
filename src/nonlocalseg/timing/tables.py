"""Results as tables: rows of named figures, shown in the terminal and written as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nonlocalseg.files import write_text

if TYPE_CHECKING:
    from rich.table import Table as RichTable

Row = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """Rows of figures in SI units (seconds, bytes, numbers); a figure that was not measured is None or absent.

    headings: column -> heading; columns of the rows that it lacks are written to JSON alone. `surroundings` are the
    device and the versions.
    """

    title: str
    headings: dict[str, str]
    rows: list[Row]
    surroundings: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def shown(self) -> RichTable:
        """The table for a terminal, figures in readable units."""
        from rich.table import Table as RichTable

        words = [f"{name} {value}" if name != "device" else value for name, value in self.surroundings.items()]
        caption = "\n".join([*self.notes, ", ".join(words)])
        table = RichTable(title=self.title, caption=caption, title_justify="left", caption_justify="left")
        for index, heading in enumerate(self.headings.values()):
            table.add_column(heading, justify="right" if index else "left", no_wrap=index > 0)
        for row in self.rows:
            table.add_row(*(spell(column, row.get(column)) for column in self.headings))
        return table

    def as_dict(self) -> dict[str, Any]:
        return {"title": self.title, **self.surroundings, "rows": self.rows, "notes": list(self.notes)}


def write_json(path: str | Path, tables: Sequence[Table]) -> Path:
    """All tables, every measured figure in SI units, as one JSON list; whole or not at all."""
    return write_text(path, json.dumps([table.as_dict() for table in tables], indent=2) + "\n")


def spell(column: str, value: Any) -> str:
    """A figure with its unit, three digits of it; a dash for what was not measured."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if "seconds" in column:
        return f"{value:.2f} s" if value >= 10 else f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s"
    if "memory" in column:
        return f"{value / 1e6:,.0f} MB"
    if "ratio" in column:
        return f"{value:.2f}x"
    if "multiply_adds" in column:
        return f"{value / 1e9:.2f} G" if value >= 1e7 else f"{value / 1e6:.3f} M"
    if "parameters" in column:
        return f"{value / 1e6:+.2f} M" if "difference" in column else f"{value / 1e6:.2f} M"
    if "error" in column:
        return f"{value:.1e}"
    if column == "size":
        return f"{value / 1e6:.1f} MB"
    if column == "mean_iou":
        return f"{100 * value:.2f} %"
    if column == "spread":
        return f"±{100 * value:.0f} %"
    if "share" in column:
        return f"{100 * value:.1f} %"
    return f"{value:.4g}"


COMPARISON = {
    "name": "",
    "seconds": "time",
    "spread": "spread",
    "ratio": "faster by",
    "multiply_adds": "multiply-adds",
    "extra_memory": "extra memory",
    "memory": "with results",
    "error": "error",
}
"""The columns of `measuring.compare`."""
