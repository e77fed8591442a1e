"""How a training went: `metrics.csv`, its rows read again, and at the end a table of the classes and `curves.png`."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning import Trainer
from rich.console import Console
from torch import Tensor

from nonlocalseg import drawing
from nonlocalseg.files import append_text, writing
from nonlocalseg.recipes.schema import Phase
from nonlocalseg.training.folder import CURVES, METRICS, RunFolder
from nonlocalseg.training.module import SegmentationTraining
from nonlocalseg.training.optimisation import poly_factor

LOG_EVERY = 20  # steps
SUMMED = "nonlocalseg_loss"
"""The entry of a checkpoint that holds the loss since the last row."""


def rate_at(phase: Phase, step: int) -> float:
    """The backbone's learning rate of the step that was just done, the `step`-th."""
    return phase.rate * poly_factor(step - 1, phase)


class MetricsFile(lightning.Callback):
    """Appends to `metrics.csv`, and to the loggers: after the first step and then every few the mean loss since the row
    before, over all processes; after a validation the scores."""

    def __init__(self, folder: RunFolder, index: int, classes: tuple[str, ...], console: Console) -> None:
        self.folder, self.index, self.classes, self.console = folder, index, classes, console
        self.columns = ["step", "loss", "rate", "images_per_second", "miou", "mean_accuracy", "pixel_accuracy"]
        self.columns += [f"iou/{name}" for name in classes]
        self.loss = self.part = torch.zeros(())  # summed over the steps since the last row, and within a step
        self.steps = self.timed = 0
        self.started = self.paused = 0.0

    @property
    def path(self) -> Path:
        return self.folder.phase(self.index) / METRICS

    def on_save_checkpoint(self, trainer: Trainer, pl_module: object, checkpoint: dict[str, Any]) -> None:
        """A resumed run goes on with the sum, so that its rows are those of a run that was not interrupted."""
        checkpoint[SUMMED] = {"loss": self._over_all(trainer).cpu(), "steps": self.steps}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: object, checkpoint: dict[str, Any]) -> None:
        self.loss, self.steps = checkpoint[SUMMED]["loss"], checkpoint[SUMMED]["steps"]

    def on_train_start(self, trainer: Trainer, pl_module: SegmentationTraining) -> None:
        """Start the file, or drop the rows that an interrupted run wrote after its last checkpoint."""
        if trainer.is_global_zero:
            rows = []
            if trainer.global_step and self.path.is_file():
                rows, damaged = read_rows(self.path, self.columns)
                rows = [row for row in rows if int(row["step"]) <= trainer.global_step]
                if damaged:
                    self.console.print(f"{self.path}: {damaged} damaged lines are left out", highlight=False)
            with writing(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, self.columns)
                writer.writeheader()
                writer.writerows(rows)
        self.loss = self.loss.to(pl_module.device)
        self.timed, self.started = 0, time.perf_counter()

    def _over_all(self, trainer: Trainer) -> Tensor:
        """The sum's mean over the processes: each must ask for it."""
        return trainer.strategy.reduce(self.loss.clone(), reduce_op="mean") if trainer.world_size > 1 else self.loss

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: SegmentationTraining, outputs: Any, batch: object, batch_idx: int
    ) -> None:
        parts = trainer.accumulate_grad_batches
        self.part = (self.part if batch_idx % parts else torch.zeros_like(self.loss)) + outputs["loss"].detach()
        if (batch_idx + 1) % parts:
            return
        if not pl_module.skipped:
            self.loss, self.steps = self.loss + self.part, self.steps + 1
        self.timed += 1
        step = trainer.global_step
        if step == 1 or step % LOG_EVERY == 0 or step == pl_module.phase.steps:
            seconds = time.perf_counter() - self.started
            self._write(
                trainer,
                {
                    "loss": float(self._over_all(trainer)) / self.steps if self.steps else math.nan,
                    "rate": rate_at(pl_module.phase, step),
                    "images_per_second": self.timed * pl_module.phase.batch_size / seconds,
                },
            )
            self.loss, self.steps = torch.zeros_like(self.loss), 0
            self.timed, self.started = 0, time.perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: SegmentationTraining) -> None:
        self.paused = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: SegmentationTraining) -> None:
        scores = pl_module.scores
        assert scores is not None
        row = {"mean_accuracy": scores.mean_accuracy, "pixel_accuracy": scores.pixel_accuracy}
        row |= {f"iou/{name}": float(iou) for name, iou in zip(self.classes, scores.iou, strict=True)}
        self._write(trainer, {"miou": scores.mean_iou, **row})
        self.started += time.perf_counter() - self.paused  # validation does not count as training time

    def _write(self, trainer: Trainer, row: dict[str, float]) -> None:
        if trainer.is_global_zero:
            line, shown = io.StringIO(newline=""), {name: f"{value:.6g}" for name, value in row.items()}
            csv.DictWriter(line, self.columns).writerow({"step": trainer.global_step, **shown})
            append_text(self.path, line.getvalue())
        for logger in trainer.loggers:
            logger.log_metrics({name: value for name, value in row.items() if value == value}, trainer.global_step)


def read_rows(path: Path, columns: Sequence[str]) -> tuple[list[dict[str, str]], int]:
    """The rows of a `metrics.csv`, of which only `columns`, and how many lines of it were damaged."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    rows, damaged, header = [], 0, next(csv.reader(lines[:1]), [])
    for line in lines[1:]:
        try:
            row = dict(zip(header, next(csv.reader([line])), strict=True))
            int(row["step"])
            _ = [float(row[name]) for name in columns if row[name]]
            rows.append({name: row[name] for name in columns})
        except (ValueError, KeyError, StopIteration, csv.Error):
            damaged += 1
    return rows, damaged


def column(path: Path, name: str) -> tuple[list[float], list[float]]:
    """Steps and values of the rows of a metrics.csv in which the column is filled."""
    rows = [row for row in read_rows(path, ["step", name])[0] if row[name]]
    return [float(row["step"]) for row in rows], [float(row[name]) for row in rows]


def curves(files: Mapping[str, Path], titles: Mapping[str, tuple[str, str]]) -> np.ndarray:
    """Columns of the `metrics.csv` of runs by name, side by side. titles: column -> its title and unit; shares can be in %."""
    panels = []
    for name, (title, unit) in titles.items():
        factor = 100 if unit == "%" else 1
        lines = {run: (steps, [factor * y for y in ys]) for run, (steps, ys) in _of_each(files, name)}
        panels.append(drawing.rastered(drawing.curves(lines, title, "step", unit)))
    return np.concatenate(panels, axis=1)


def _of_each(files: Mapping[str, Path], name: str) -> Iterator[tuple[str, tuple[list[float], list[float]]]]:
    for run, path in files.items():
        yield run, column(path, name)


def tell(folder: Path, classes: Sequence[str], best_step: int | None, console: Console) -> None:
    """Draw `curves.png` and, where there was a validation, print the IoU of every class at the best step."""
    path, titles = folder / METRICS, {"loss": ("Training loss", "nats")}
    if best_step is not None:
        titles["miou"] = ("Mean IoU in the validation", "%")
        names = [f"iou/{name}" for name in classes]
        found = [
            row
            for row in read_rows(path, ["step", *names])[0]
            if int(row["step"]) == best_step and any(map(row.get, names))
        ]
        if found:
            values = [float(found[-1][name] or "nan") for name in names]
            console.print(f"IoU in per cent at step {best_step}", highlight=False)
            console.print(drawing.score_table({"IoU": values}, classes, "mean (mIoU)"), highlight=False, markup=False)
    drawing.save(curves({folder.name: path}, titles), folder / CURVES)
    console.print(f"curves: {folder / CURVES}", highlight=False, soft_wrap=True)
