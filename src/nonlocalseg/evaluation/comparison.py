"""Two evaluations of the same images, compared by a paired bootstrap over them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nonlocalseg.evaluation.results import Evaluation
from nonlocalseg.files import write_rows, write_text
from nonlocalseg.metrics import BootstrapDifference, bootstrap_difference, without_nan


@dataclass(frozen=True, eq=False)
class Comparison:
    """Second model minus first on the same images; the intervals are those of the paired bootstrap."""

    first: Evaluation
    second: Evaluation
    difference: BootstrapDifference

    def per_class(self) -> list[dict[str, Any]]:
        """One row per class: class, first, second, difference, low, high; shares, None where undefined."""
        found = self.difference
        columns = (self.first.scores.iou, self.second.scores.iou, found.iou, found.iou_low, found.iou_high)
        names = ("class", "first", "second", "difference", "low", "high")
        rows = zip(self.first.classes, *(column.tolist() for column in columns), strict=True)
        return [without_nan(dict(zip(names, row, strict=True))) for row in rows]

    def write(self, folder: str | Path) -> Path:
        """Write STEM-comparison.json (returned) and the classes as STEM-comparison.csv."""
        found, rows = self.difference, self.per_class()
        report = {
            "first": self.first.settings,
            "second": self.second.settings,
            "mean_iou": {"difference": found.mean_iou, "low": found.low, "high": found.high},
            "classes": rows,
            "images": len(self.first.images),
        }
        stem = Path(folder) / f"{self.second.stem}-comparison"
        write_rows(stem.with_name(f"{stem.name}.csv"), rows)
        return write_text(stem.with_name(f"{stem.name}.json"), json.dumps(without_nan(report), indent=1) + "\n")


def compare(first: Evaluation, second: Evaluation) -> Comparison:
    """The second evaluation minus the first; ValueError where they are not of the same images and classes."""
    if first.classes != second.classes:
        raise ValueError("the two models have other classes: only models of the same classes can be compared")
    if [row["name"] for row in first.images] != [row["name"] for row in second.images]:
        raise ValueError("the two evaluations are of other images: evaluate both models on the same split")
    return Comparison(first, second, bootstrap_difference(first.counts, second.counts))
