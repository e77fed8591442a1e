"""`evaluate()`: a saved model against the labels of a data set, at the labels' own size, per class and per image."""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from nonlocalseg.data.dataset import SegmentationDataset
from nonlocalseg.files import write_text, writing
from nonlocalseg.inference import check_options, evaluating, infer
from nonlocalseg.metrics import Scores, bootstrap_mean_iou, confusion_matrix, scores
from nonlocalseg.models.hub import from_pretrained
from nonlocalseg.models.segmenter import Segmenter
from nonlocalseg.models.speed import SpedUp, speed_up
from nonlocalseg.training.datamodule import open_data
from nonlocalseg.training.recipes import Phase


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The scores of one model on one split.

    images: one row per image: name, miou, pixel_accuracy, valid pixels. counts: int64 [N, K, 3], true positives, false
    positives and false negatives per image and class, for `bootstrap_difference`. seconds: of inference alone.
    settings: what was evaluated and how. interval: 95 % bootstrap interval of the mIoU over the images.
    """

    scores: Scores
    classes: tuple[str, ...]
    confusion: Tensor
    images: list[dict[str, Any]]
    counts: Tensor
    interval: tuple[float, float]
    seconds: float
    settings: dict[str, Any]

    def write(self, folder: str | Path) -> Path:
        """Write DATA-SPLIT-MODE.json, the per-class table as .csv and the images as -images.csv; returns the first."""
        stem = Path(folder) / f"{self.settings['data']}-{self.settings['split']}-{self.settings['mode']}"
        report = {
            "settings": self.settings,
            **self.scores.to_dict(self.classes),
            "interval": self.interval,
            "seconds": round(self.seconds, 3),
            "images": len(self.images),
            "confusion": self.confusion.tolist(),
        }
        _write_rows(stem.with_name(f"{stem.name}.csv"), self.scores.per_class(self.classes))
        _write_rows(stem.with_name(f"{stem.name}-images.csv"), self.images)
        return write_text(stem.with_name(f"{stem.name}.json"), json.dumps(report, indent=1) + "\n")


def evaluate(
    model: str | Path | nn.Module,
    data: str = "folder",
    root: str | None = None,
    split: str = "val",
    *,
    mode: Literal["whole", "slide"] = "whole",
    crop: int | tuple[int, int] | None = None,
    stride: float | tuple[float, float] | None = None,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    average: Literal["probabilities", "logits"] = "probabilities",
    precision: Literal["32", "bf16", "16"] = "32",
    fast: bool = False,
    data_options: Mapping[str, Any] | None = None,
    device: str | None = None,
    workers: int | None = None,
    out: str | Path | None = None,
    progress: bool = True,
) -> Evaluation:
    """Measure a model on a labelled split.

    Raises ValueError where the model's classes are not those of the data, where the split has no labels, and for
    options that make no sense; FileNotFoundError for a missing model or root.

    Args:
        model: folder of a run, a saved model, its name on the hub, or a model.
        data: name of the data set.
        root: folder of the data.
        split: split to measure on; several joined with +.
        mode: whole images, or windows that slide over them.
        crop: height and width of the windows.
        stride: step between windows, in pixels or as a part of the crop.
        scales: factors at which every image is seen; the scores are averaged.
        flip: see every image mirrored as well.
        average: what is averaged over windows, scales and flips.
        precision: 32, bf16 or 16.
        fast: the fastest form of the model on this device, which may mean half precision; it says what it chose.
        data_options: further options of the data set.
        device: cpu, cuda, ...; by default a GPU where there is one.
        workers: processes that read images.
        out: folder for the JSON and CSV files; by default none are written.
        progress: show progress.
    """
    check_options(mode, crop, stride, scales, average)
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    network: nn.Module = model if isinstance(model, nn.Module) else from_pretrained(model)
    parts = open_data(Phase(data=data, root=root, data_options=data_options or {}), split)
    classes = parts[0].classes
    _check_classes(network, classes, data)
    options = dict(mode=mode, crop=crop, stride=stride, scales=tuple(scales), flip=flip, average=average)
    if mode == "whole" and tuple(scales) == (1.0,) and not flip:
        options["average"] = "logits"  # one pass: nothing to average
    half = {"32": None, "bf16": torch.bfloat16, "16": torch.float16}[precision]
    network.to(where)
    chosen: dict[str, Any] = {"precision": precision}
    if fast:
        network = _sped_up(network, where, precision)
        chosen = {"fast": list(network.choices)}
        Console(quiet=not progress, stderr=True).print(f"fast: {', '.join(network.choices)}", highlight=False)
    rows, confusions, seconds = [], [], 0.0
    loader = DataLoader(
        _Read(parts), batch_size=None, num_workers=min(4, os.cpu_count() or 1) if workers is None else workers
    )
    with evaluating(network), torch.autocast(where.type, dtype=half, enabled=half is not None):
        for name, image, label in track(loader, "evaluating", console=Console(quiet=not progress, stderr=True)):
            if image is None:
                raise ValueError(label)
            if label is None:
                raise ValueError(f"{root or data}: the split {split!r} has no labels to evaluate against")
            start = time.perf_counter()
            logits = infer(network, image[None].to(where), align_corners=network.align_corners, **options)  # pyright: ignore
            confusion = confusion_matrix(logits.argmax(1)[0], label.to(where).long(), len(classes)).cpu()
            seconds += time.perf_counter() - start
            found = scores(confusion)
            rows.append(
                {
                    "name": name,
                    "miou": found.mean_iou,
                    "pixel_accuracy": found.pixel_accuracy,
                    "pixels": int(confusion.sum()),
                }
            )
            confusions.append(confusion)
    settings = {
        "model": str(model) if isinstance(model, (str, Path)) else type(model).__name__,
        "data": data,
        "split": split,
    }
    result = _collect(confusions, rows, classes, seconds, settings | options | chosen)
    if out is not None:
        result.write(out)
    return result


def _sped_up(network: nn.Module, device: torch.device, precision: str) -> SpedUp:
    if precision != "32":
        raise ValueError("--fast chooses the precision itself: leave out --precision")
    if not isinstance(network, Segmenter):
        raise ValueError("--fast is for models of this library")
    return speed_up(network, device)


class _Read(Dataset):
    """(name, image uint8 [3, H, W], label uint8 [H, W] or None); (name, None, message) for what cannot be read."""

    def __init__(self, parts: list[SegmentationDataset]) -> None:
        self.items = [(part, index) for part in parts for index in range(len(part))]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, item: int) -> tuple[str, Tensor | None, Tensor | str | None]:
        part, index = self.items[item]
        try:
            image, label = part.read(index)
        except (ValueError, OSError) as error:
            return part.name(index), None, str(error)
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
        return part.name(index), pixels, None if label is None else torch.from_numpy(label)


def _check_classes(network: nn.Module, classes: tuple[str, ...], data: str) -> None:
    """ValueError where the model cannot have been trained for these classes."""
    known = tuple(getattr(network, "classes", ()) or ())
    count = getattr(network, "num_classes", len(known))
    if count != len(classes):
        raise ValueError(
            f"the model predicts {count} classes and {data} has {len(classes)}: evaluate it on its own data"
        )
    if set(known) == set(classes) and known != tuple(classes):
        raise ValueError(f"the model and {data} have the same classes in another order: bring them into one order")


def _collect(
    confusions: list[Tensor], rows: list[dict[str, Any]], classes: tuple[str, ...], seconds: float, settings: dict
) -> Evaluation:
    every = torch.stack(confusions)  # [N, K, K + 1]
    confusion = every.sum(0)
    hits = every.diagonal(dim1=1, dim2=2)  # [N, K]
    counts = torch.stack([hits, every[..., :-1].sum(1) - hits, every.sum(2) - hits], dim=2)
    return Evaluation(
        scores(confusion), classes, confusion, rows, counts, bootstrap_mean_iou(counts), seconds, settings
    )


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    with writing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
