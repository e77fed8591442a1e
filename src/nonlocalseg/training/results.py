"""What an evaluation found, its files, and the comparison of two by a paired bootstrap over the images."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nonlocalseg import drawing
from nonlocalseg.files import write_text, writing
from nonlocalseg.metrics import BootstrapDifference, BoundaryScores, Scores, bootstrap_difference, scores


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The scores of one model on one split.

    images: one row per image: name, miou, pixel_accuracy, valid pixels. counts: int64 [N, K, 3], true positives, false
    positives and false negatives per image and class, for `compare`. seconds: of inference alone. settings: what was
    evaluated and how. interval: 95 % bootstrap interval of the mIoU over the images. boundary: the scores along
    boundaries, where they were asked for.
    """

    scores: Scores
    classes: tuple[str, ...]
    images: list[dict[str, Any]]
    counts: Tensor
    interval: tuple[float, float]
    seconds: float
    settings: dict[str, Any]
    boundary: BoundaryScores | None = None

    @property
    def confusion(self) -> Tensor:
        """int64 [K, K + 1], see `metrics.confusion_matrix`."""
        return self.scores.confusion

    @property
    def stem(self) -> str:
        """How its files are called: data, split and inference setting."""
        how = self.settings.get("setting") or self.settings["mode"]
        return f"{self.settings['data']}-{self.settings['split']}-{how}"

    def worst(self, count: int = 5) -> list[dict[str, Any]]:
        """The rows of the images with the lowest mIoU, the lowest first; images without a valid pixel are left out."""
        return sorted((row for row in self.images if not math.isnan(row["miou"])), key=lambda r: r["miou"])[:count]

    def write(self, folder: str | Path) -> Path:
        """Write the figures as .json (returned), the classes as .csv, the images as -images.csv, their counts as
        -counts.npz and the confusion matrix as -confusion.png, all called `stem`."""
        folder, stem = Path(folder), self.stem
        report = {
            "settings": self.settings,
            **self.scores.to_dict(self.classes),
            "interval": self.interval,
            "seconds": round(self.seconds, 3),
            "images": len(self.images),
            "worst_images": [row["name"] for row in self.worst()],
            "boundary": None if self.boundary is None else asdict(self.boundary),
            "confusion": self.confusion.tolist(),
        }
        _write_rows(folder / f"{stem}.csv", self.scores.per_class(self.classes))
        _write_rows(folder / f"{stem}-images.csv", self.images)
        names = np.array([row["name"] for row in self.images])
        with writing(folder / f"{stem}-counts.npz") as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, names=names, classes=np.array(self.classes), counts=self.counts.numpy())
        title = f"{stem}: mIoU {100 * self.scores.mean_iou:.2f} %"
        drawing.save(drawing.confusion_picture(self.confusion, self.classes, title), folder / f"{stem}-confusion.png")
        return write_text(folder / f"{stem}.json", json.dumps(_plain(report), indent=1) + "\n")

    @staticmethod
    def read(path: str | Path) -> Evaluation:
        """What `write` returned the path of; FileNotFoundError and ValueError where it is not such a file."""
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: there is no such evaluation; give the .json that `evaluate` wrote")
        try:
            report = json.loads(path.read_text())
            with path.with_name(f"{path.stem}-images.csv").open(newline="") as file:
                images = [_image_row(row) for row in csv.DictReader(file)]
            with np.load(path.with_name(f"{path.stem}-counts.npz")) as stored:
                counts = torch.from_numpy(stored["counts"])
            found = report["boundary"]
            return Evaluation(
                scores(torch.tensor(report["confusion"])),
                tuple(row["class"] for row in report["classes"]),
                images,
                counts,
                tuple(report["interval"]),
                report["seconds"],
                report["settings"],
                None if found is None else BoundaryScores(**_undefined(found)),
            )
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error.filename} is missing beside {path.name}: evaluate again") from None
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path} is no evaluation; give the .json that `evaluate` wrote") from None


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
        return [
            dict(zip(names, (name, *map(_plain, row)), strict=True))
            for name, *row in zip(self.first.classes, *(column.tolist() for column in columns), strict=True)
        ]

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
        _write_rows(stem.with_name(f"{stem.name}.csv"), rows)
        return write_text(stem.with_name(f"{stem.name}.json"), json.dumps(_plain(report), indent=1) + "\n")


def compare(first: Evaluation, second: Evaluation) -> Comparison:
    """The second evaluation minus the first; ValueError where they are not of the same images and classes."""
    if first.classes != second.classes:
        raise ValueError("the two models have other classes: only models of the same classes can be compared")
    if [row["name"] for row in first.images] != [row["name"] for row in second.images]:
        raise ValueError("the two evaluations are of other images: evaluate both models on the same split")
    return Comparison(first, second, bootstrap_difference(first.counts, second.counts))


def _image_row(row: Mapping[str, str]) -> dict[str, Any]:
    accuracies = {name: float(row[name] or "nan") for name in ("miou", "pixel_accuracy")}
    return {"name": row["name"], **accuracies, "pixels": int(row["pixels"])}


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with writing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _plain(value: Any) -> Any:
    """`value` for JSON: nan becomes None, in whatever it stands."""
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _undefined(value: Any) -> Any:
    """The reverse of `_plain` for the scores along boundaries: None becomes nan in a list, and a list a tuple."""
    if isinstance(value, Mapping):
        return {name: _undefined(item) for name, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return tuple(math.nan if item is None else _undefined(item) for item in value)
    return value
