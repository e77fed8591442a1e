"""What an evaluation found, and its files."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Le
from pydantic import BeforeValidator
from torch import Tensor

from nonlocalseg.boundaries import BoundaryScores
from nonlocalseg.data.source import DataSource
from nonlocalseg.files import write_rows, write_text, writing
from nonlocalseg.metrics import Scores, class_counts, scores, with_nan, without_nan
from nonlocalseg.values import Natural, NotNegative, Precision, from_plain, names_of, plain, value
from nonlocalseg.view import View

Share = Annotated[float, Ge(0), Le(1)] | None
"""In [0, 1]; None where undefined."""
Pixels = Annotated[Natural, Le(2**53)]


@value
class Settings:
    """What was evaluated and how."""

    model: str
    "Folder or name of the model."
    weights: str
    "`fingerprint` of the model."
    source: DataSource
    "The data."
    view: View
    "How the model saw it."
    setting: str | None = None
    "The name of that view, where it was chosen by one."
    precision: Precision = "32"
    "Bits of the arithmetic."
    fast: tuple[str, ...] = ()
    "What `fast` chose."

    @property
    def same(self) -> dict[str, Any]:
        """What decides the figures of a model, as JSON holds it: two evaluations with the same of it may be merged."""
        found = plain(self)
        return {name: found[name] for name in names_of(Settings) if name not in ("model", "weights", "setting")}

    def words(self) -> list[str]:
        """How the images were seen, for people."""
        named = [f"setting {self.setting}"] if self.setting else []
        bits = [] if self.precision == "32" else [f"precision {self.precision}"]
        fast = [f"fast ({', '.join(self.fast)})"] if self.fast else []
        return [*named, *self.view.words(), *bits, *fast]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The scores of one model on one split.

    images: one row per image: name, miou, pixel_accuracy, valid pixels. counts: int64 [N, K, 3], true positives, false
    positives and false negatives per image and class, for `compare`. seconds: of inference alone. interval: 95 %
    bootstrap interval of the mIoU over the images. boundary: the scores along boundaries, where they were measured.
    """

    scores: Scores
    classes: tuple[str, ...]
    images: list[dict[str, Any]]
    counts: Tensor
    interval: tuple[float, float]
    seconds: float
    settings: Settings
    boundary: BoundaryScores | None = None

    def __repr__(self) -> str:
        low, high = (f"{100 * bound:.2f}" for bound in self.interval)
        found = f"mIoU {100 * self.scores.mean_iou:.2f} % ({low} to {high})"
        return f"Evaluation({self.settings.source.describe()}: {found}, {len(self.images)} images)"

    @property
    def confusion(self) -> Tensor:
        """int64 [K, K + 1], see `metrics.confusion_matrix`."""
        return self.scores.confusion

    @property
    def stem(self) -> str:
        """How its files are called: data, split and view for people, and a number that stands for all settings."""
        source, how = self.settings.source, self.settings.setting or self.settings.view.mode
        number = hashlib.sha256(json.dumps(self.settings.same, sort_keys=True).encode()).hexdigest()[:8]
        return f"{source.data}-{source.split}-{how}-{number}"

    def worst(self, count: int = 5) -> list[dict[str, Any]]:
        """The rows of the images with the lowest mIoU, the lowest first; images without a valid pixel are left out."""
        return sorted((row for row in self.images if not math.isnan(row["miou"])), key=lambda r: r["miou"])[:count]

    def merged(self, folder: str | Path) -> Evaluation:
        """With the boundary scores of the same evaluation that `folder` holds, where this one has none of its own."""
        path = Path(folder) / f"{self.stem}.json"
        if self.boundary is not None or not path.is_file():
            return self
        try:
            stored = Evaluation.read(path)
        except (ValueError, OSError):
            return self
        same = stored.settings.weights == self.settings.weights and torch.equal(stored.counts, self.counts)
        return replace(self, boundary=stored.boundary) if same else self

    def write(self, folder: str | Path) -> Path:
        """Write the figures as .json (returned), the classes as .csv, the images as -images.csv, their counts as
        -counts.npz and the confusion matrix as -confusion.png, all called `stem`."""
        from nonlocalseg import drawing  # matplotlib, which measuring does without

        folder, stem = Path(folder), self.stem
        report = {
            "settings": plain(self.settings),
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
            return _read(path)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error.filename} is missing beside {path.name}: evaluate again") from None
        except _UNREADABLE as error:
            reason = str(error).removeprefix(f"{path}: ").partition("\n")[0]
            cure = "give the .json that `evaluate` wrote, or evaluate again"
            raise ValueError(f"{path} is no evaluation, or a damaged one ({reason}); {cure}") from None


# --- Reading ----------------------------------------------------------------------------------------------------

# What json, csv, zipfile, numpy and torch raise for damaged files.
_UNREADABLE = (
    ValueError,
    KeyError,
    TypeError,
    RuntimeError,
    OverflowError,
    EOFError,
    csv.Error,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    tokenize.TokenError,
)


def _nan(given: object) -> object:
    return {name: with_nan(item) for name, item in given.items()} if isinstance(given, Mapping) else given


@value
class _Stored:
    """What is read of the .json; the other figures follow from the confusion matrix."""

    settings: Settings
    classes: tuple[dict[str, str | Natural | Share], ...]
    interval: tuple[Share, Share]
    seconds: Annotated[NotNegative, Le(1e12)]
    boundary: Annotated[BoundaryScores | None, BeforeValidator(_nan)]
    confusion: tuple[tuple[Pixels, ...], ...]

    def __post_init__(self) -> None:
        count = len(self.classes)
        if not count or {len(row) for row in self.confusion} != {count + 1} or len(self.confusion) != count:
            raise ValueError(f"confusion: not a matrix of {count} x {count + 1}")
        if (edges := self.boundary) is not None:
            lists = (edges.radii, edges.published, edges.present, edges.published_classes, edges.present_classes)
            by_class = [*edges.published_classes, *edges.present_classes, edges.boundary_iou or (0.0,) * count]
            if {len(one) for one in lists} != {len(edges.thresholds)} or {len(one) for one in by_class} != {count}:
                raise ValueError("boundary: figures of other thresholds, or other classes")


def _read(path: Path) -> Evaluation:
    report = json.loads(path.read_text(encoding="utf-8"))
    found = from_plain(_Stored, {name: report[name] for name in names_of(_Stored)}, path)
    with path.with_name(f"{path.stem}-images.csv").open(newline="", encoding="utf-8") as file:
        images = [_image_row(row) for row in csv.DictReader(file)]
    counts = _read_counts(path.with_name(f"{path.stem}-counts.npz"), (len(images), len(found.classes), 3))
    confusion = torch.tensor(found.confusion)
    valid = counts[..., [0, 2]].sum((1, 2)).tolist()
    if not torch.equal(counts.sum(0), class_counts(confusion)) or valid != [row["pixels"] for row in images]:
        raise ValueError("the counts of the images are not those of the matrix")
    low, high = with_nan(found.interval)
    classes = tuple(str(row["class"]) for row in found.classes)
    measured = scores(confusion), classes, images, counts, (low, high), found.seconds
    return Evaluation(*measured, found.settings, found.boundary)


def _image_row(row: Mapping[str, str]) -> dict[str, Any]:
    accuracies = {name: float(row[name] or "nan") for name in ("miou", "pixel_accuracy")}
    return {"name": str(row["name"]), **accuracies, "pixels": int(row["pixels"])}


def _read_counts(path: Path, shape: tuple[int, ...]) -> Tensor:
    """int64 of that shape; the header is looked at before memory is taken for what it declares."""
    with zipfile.ZipFile(path) as archive, archive.open("counts.npy") as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"{path.name}: another format")
        found, _, kind = np.lib.format.read_array_header_1_0(file)
    if found != shape or kind != np.int64:
        raise ValueError(f"{path.name} holds {kind} {list(found)} and not int64 {list(shape)}")
    with np.load(path) as stored:
        counts = torch.from_numpy(stored["counts"])
    if bool((counts < 0).any()):
        raise ValueError(f"{path.name} holds numbers below 0")
    return counts
