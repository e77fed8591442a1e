"""What an evaluation found, and its files."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nonlocalseg.boundaries import BoundaryScores
from nonlocalseg.files import write_rows, write_text, writing
from nonlocalseg.metrics import Scores, scores, with_nan, without_nan


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The scores of one model on one split.

    images: one row per image: name, miou, pixel_accuracy, valid pixels. counts: int64 [N, K, 3], true positives, false
    positives and false negatives per image and class, for `compare`. seconds: of inference alone. settings: what was
    evaluated and how, as JSON holds it. interval: 95 % bootstrap interval of the mIoU over the images. boundary: the
    scores along boundaries, where they were asked for.
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
        from nonlocalseg import drawing  # matplotlib, which measuring does without

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
        write_rows(folder / f"{stem}.csv", self.scores.per_class(self.classes))
        write_rows(folder / f"{stem}-images.csv", self.images)
        names = np.array([row["name"] for row in self.images])
        with writing(folder / f"{stem}-counts.npz") as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, names=names, classes=np.array(self.classes), counts=self.counts.numpy())
        title = f"{stem}: mIoU {100 * self.scores.mean_iou:.2f} %"
        drawing.save(drawing.confusion_picture(self.confusion, self.classes, title), folder / f"{stem}-confusion.png")
        return write_text(folder / f"{stem}.json", json.dumps(without_nan(report), indent=1) + "\n")

    @staticmethod
    def read(path: str | Path) -> Evaluation:
        """What `write` returned the path of; FileNotFoundError and ValueError where it is not such a file."""
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: there is no such evaluation; give the .json that `evaluate` wrote")
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
            with path.with_name(f"{path.stem}-images.csv").open(newline="", encoding="utf-8") as file:
                images = [_image_row(row) for row in csv.DictReader(file)]
            with np.load(path.with_name(f"{path.stem}-counts.npz")) as stored:
                counts = torch.from_numpy(stored["counts"])
            return Evaluation(
                scores(torch.tensor(report["confusion"])),
                tuple(row["class"] for row in report["classes"]),
                images,
                counts,
                with_nan(report["interval"]),
                report["seconds"],
                report["settings"],
                _boundary(report["boundary"]),
            )
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error.filename} is missing beside {path.name}: evaluate again") from None
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path} is no evaluation; give the .json that `evaluate` wrote") from None


def _image_row(row: Mapping[str, str]) -> dict[str, Any]:
    accuracies = {name: float(row[name] or "nan") for name in ("miou", "pixel_accuracy")}
    return {"name": row["name"], **accuracies, "pixels": int(row["pixels"])}


def _boundary(found: Mapping[str, Any] | None) -> BoundaryScores | None:
    return None if found is None else BoundaryScores(**{name: with_nan(item) for name, item in found.items()})
