"""Two evaluations of the same images, compared by a paired bootstrap over them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nonlocalseg.evaluation.results import Evaluation
from nonlocalseg.files import write_rows, write_text
from nonlocalseg.metrics import BootstrapDifference, bootstrap_difference, without_nan
from nonlocalseg.values import plain


@dataclass(frozen=True, eq=False)
class Comparison:
    """Second model minus first on the same images; the intervals are those of the paired bootstrap."""

    first: Evaluation
    second: Evaluation
    difference: BootstrapDifference

    def __repr__(self) -> str:
        points = " ".join(f"{100 * share:+.2f}" for share in (self.difference.low, self.difference.high))
        found = f"mIoU {100 * self.difference.mean_iou:+.2f} points ({points.replace(' ', ' to ')})"
        return f"Comparison({self.second.settings.model} against {self.first.settings.model}: {found})"

    @property
    def stem(self) -> str:
        """How its files are called: by the second evaluation, and the model that it is compared with."""
        model = re.sub(r"[^\w.-]+", "-", Path(self.first.settings.model).name)
        return f"{self.second.stem}-{model}-comparison"

    def per_class(self) -> list[dict[str, Any]]:
        """One row per class: class, first, second, difference, low, high; shares, None where undefined."""
        found = self.difference
        columns = (self.first.scores.iou, self.second.scores.iou, found.iou, found.iou_low, found.iou_high)
        names = ("class", "first", "second", "difference", "low", "high")
        rows = zip(self.first.classes, *(column.tolist() for column in columns), strict=True)
        return [without_nan(dict(zip(names, row, strict=True))) for row in rows]

    def write(self, folder: str | Path) -> Path:
        """Write the figures as .json (returned) and the classes as .csv, both called `stem`."""
        found, rows = self.difference, self.per_class()
        report = {
            "first": plain(self.first.settings),
            "second": plain(self.second.settings),
            "mean_iou": {"difference": found.mean_iou, "low": found.low, "high": found.high},
            "classes": rows,
            "images": len(self.first.images),
        }
        write_rows(Path(folder) / f"{self.stem}.csv", rows)
        return write_text(Path(folder) / f"{self.stem}.json", json.dumps(without_nan(report), indent=1) + "\n")


def compare(first: Evaluation, second: Evaluation) -> Comparison:
    """The second evaluation minus the first; ValueError where they are not of the same images and classes."""
    check_comparable(first, second.classes, [row["name"] for row in second.images])
    if [row["pixels"] for row in first.images] != [row["pixels"] for row in second.images]:
        raise ValueError("the two evaluations are of other labels: evaluate both models on the same data")
    return Comparison(first, second, bootstrap_difference(first.counts, second.counts))


def check_comparable(first: Evaluation, classes: tuple[str, ...], names: list[str]) -> None:
    """ValueError where an evaluation is not of these classes and images."""
    if first.classes != classes:
        raise ValueError("the two models have other classes: only models of the same classes can be compared")
    if [row["name"] for row in first.images] != names:
        raise ValueError("the two evaluations are of other images: evaluate both models on the same split")
