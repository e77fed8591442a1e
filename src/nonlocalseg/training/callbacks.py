"""What a run leaves on disk and on the screen: recipe.yaml, checkpoints, the model, metrics.csv, the progress bar; and
the average of the weights."""

from __future__ import annotations

import csv
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import lightning
from lightning import Trainer
from lightning.pytorch.callbacks import WeightAveraging
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor

from nonlocalseg.files import writing
from nonlocalseg.models.storage import BEST, LAST
from nonlocalseg.recipes.schema import Phase
from nonlocalseg.training.folder import CHECKPOINT, RunFolder
from nonlocalseg.training.module import SegmentationTraining
from nonlocalseg.training.optimisation import moving_average, poly_factor
from nonlocalseg.training.plan import Plan, write_plan

LOG_EVERY = 20  # steps
LINE_EVERY = 30.0  # seconds between lines where the output is no terminal


def clock(seconds: float) -> str:
    """1:02:03."""
    minutes, second = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{second:02d}"


def _rate(phase: Phase, step: int) -> float:
    """The backbone's learning rate of the step that was just done, the `step`-th."""
    return phase.rate * poly_factor(step - 1, phase)


class Average(WeightAveraging):
    """The moving average of weights and buffers, which is validated, saved, and left in the model at the end."""

    def __init__(self, decay: float) -> None:
        super().__init__(avg_fn=moving_average(decay))

    @contextmanager
    def in_the_model(self, trainer: Trainer, module: SegmentationTraining) -> Iterator[None]:
        """The average in place of the model's weights, as Lightning does it around a validation."""
        self.on_validation_epoch_start(trainer, module)
        try:
            yield
        finally:
            self.on_validation_epoch_end(trainer, module)


class Checkpoints(lightning.Callback):
    """Saves `checkpoints/last.ckpt` and the model as `last/` after every validation, `best.ckpt` and `best/` if better.

    Best is the highest validation mIoU; without validation it is the last. `extra` is stored in the checkpoints. With an
    `average`, which must come before it in the trainer's list, that is the model.
    """

    def __init__(self, folder: RunFolder, index: int, average: Average | None, extra: dict[str, Any]) -> None:
        self.folder, self.index, self.average, self.extra = folder, index, average, extra
        self.best: float | None = None
        self.best_step = 0

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_step": self.best_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.best_step = state_dict["best"], state_dict["best_step"]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: object, checkpoint: dict[str, Any]) -> None:
        checkpoint["nonlocalseg"] = self.extra

    def on_validation_end(self, trainer: Trainer, pl_module: SegmentationTraining) -> None:
        assert pl_module.scores is not None
        self._save(trainer, pl_module, pl_module.scores.mean_iou)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: SegmentationTraining, outputs: object, batch: object, batch_idx: int
    ) -> None:
        step, phase = trainer.global_step, pl_module.phase
        if phase.val_split or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if step % phase.interval == 0 or step == phase.steps:
            self._save(trainer, pl_module, None)

    def _save(self, trainer: Trainer, module: SegmentationTraining, miou: float | None) -> None:
        place = self.folder.phase(self.index)
        better = miou is None or self.best is None or not miou <= self.best
        if better:
            self.best, self.best_step = miou, trainer.global_step
        if trainer.is_global_zero:
            with self.average.in_the_model(trainer, module) if self.average else nullcontext():
                for name in (LAST, BEST) if better else (LAST,):
                    module.model.save_pretrained(place / name)
        self.save_last(trainer)
        if better and trainer.is_global_zero:
            with writing((place / CHECKPOINT).with_name("best.ckpt")) as temporary:
                shutil.copyfile(place / CHECKPOINT, temporary)

    def save_last(self, trainer: Trainer) -> None:
        """Write last.ckpt: every process must call it, the first one writes."""
        trainer.save_checkpoint(self.folder.phase(self.index) / CHECKPOINT)


class SameFolder(lightning.Callback):
    """Tells every process the folder that the first one has claimed."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def setup(self, trainer: Trainer, pl_module: object, stage: str) -> None:
        own = str(self.folder.path) if trainer.is_global_zero else ""
        self.folder.agree(trainer.strategy.broadcast(own))


class RecipeFile(lightning.Callback):
    """Writes `recipe.yaml` when training begins: a resumed run that cannot begin keeps the one that it has."""

    def __init__(self, folder: RunFolder, plan: Plan) -> None:
        self.folder, self.plan = folder, plan

    def on_train_start(self, trainer: Trainer, pl_module: object) -> None:
        if trainer.is_global_zero:
            write_plan(self.folder.recipe, self.plan)


class MetricsFile(lightning.Callback):
    """Appends to `metrics.csv`, and to the loggers: every few steps the loss, after a validation the scores too."""

    def __init__(self, folder: RunFolder, index: int, classes: tuple[str, ...]) -> None:
        self.folder, self.index, self.classes = folder, index, classes
        self.columns = ["step", "loss", "rate", "images_per_second", "miou", "mean_accuracy", "pixel_accuracy"]
        self.columns += [f"iou/{name}" for name in classes]
        self.loss: Tensor | float = 0.0
        self.steps = 0
        self.started = self.paused = 0.0

    @property
    def path(self) -> Path:
        return self.folder.phase(self.index) / "metrics.csv"

    def on_train_start(self, trainer: Trainer, pl_module: SegmentationTraining) -> None:
        """Start the file, or drop the rows that an interrupted run wrote after its last checkpoint."""
        if trainer.is_global_zero:
            rows = []
            if trainer.global_step and self.path.is_file():
                with self.path.open(newline="", encoding="utf-8") as file:
                    rows = [row for row in csv.DictReader(file) if int(row["step"]) <= trainer.global_step]
            with writing(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, self.columns, extrasaction="ignore")
                writer.writeheader()
                writer.writerows(rows)
        self._restart()

    def _restart(self) -> None:
        self.loss, self.steps, self.started = 0.0, 0, time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: SegmentationTraining, outputs: Any, batch: object, batch_idx: int
    ) -> None:
        parts = trainer.accumulate_grad_batches
        self.loss = self.loss + outputs["loss"].detach()
        if (batch_idx + 1) % parts:
            return
        self.steps += 1
        step = trainer.global_step
        if step % LOG_EVERY == 0 or step == pl_module.phase.steps:
            seconds = time.perf_counter() - self.started
            self._write(
                trainer,
                {
                    "loss": float(self.loss) / self.steps,
                    "rate": _rate(pl_module.phase, step),
                    "images_per_second": self.steps * pl_module.phase.batch_size / seconds,
                },
            )
            self._restart()

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
            with self.path.open("a", newline="", encoding="utf-8") as file:
                shown = {name: f"{value:.6g}" for name, value in row.items()}
                csv.DictWriter(file, self.columns).writerow({"step": trainer.global_step, **shown})
        for logger in trainer.loggers:
            logger.log_metrics({name: value for name, value in row.items() if value == value}, trainer.global_step)


class ProgressBar(lightning.Callback):
    """Step, loss, learning rate, images per second, time left; without a terminal a line every half minute."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar: Progress | None = None
        self.shown = self.started = self.paused = self.validating = 0.0
        self.first = 0

    def on_train_start(self, trainer: Trainer, pl_module: SegmentationTraining) -> None:
        if not trainer.is_global_zero:
            return
        self.first = trainer.global_step
        self.started = self.shown = time.perf_counter()
        self.validating = 0.0
        if self.console.is_terminal:
            text = TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[text]}")
            bar = Progress(BarColumn(None), text, TimeElapsedColumn(), console=self.console, refresh_per_second=4)
            bar.add_task("", total=pl_module.phase.steps, completed=self.first, text="")
            bar.start()
            self.bar = bar

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: SegmentationTraining, outputs: Any, batch: object, batch_idx: int
    ) -> None:
        now, step = time.perf_counter(), trainer.global_step
        every = 1.0 if self.bar else LINE_EVERY
        if not trainer.is_global_zero or (now - self.shown < every and step < pl_module.phase.steps):
            return
        if step == self.first:
            return
        self.shown = now
        pace = (now - self.started - self.validating) / (step - self.first)
        text = (
            f"loss {float(outputs['loss']):.3f}  rate {_rate(pl_module.phase, step):.2g}  "
            f"{pl_module.phase.batch_size / pace:.1f} images/s  {clock(pace * (pl_module.phase.steps - step))} left"
        )
        if self.bar:
            self.bar.update(self.bar.task_ids[0], completed=step, text=text)
        else:
            self.console.print(f"step {step}/{pl_module.phase.steps}  {text}", highlight=False)

    def on_validation_start(self, trainer: Trainer, pl_module: SegmentationTraining) -> None:
        self.paused = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: SegmentationTraining) -> None:
        if trainer.is_global_zero:
            self.validating += time.perf_counter() - self.paused
            score = pl_module.scores
            assert score is not None
            self.console.print(
                f"step {trainer.global_step}  validation mIoU {score.mean_iou:.4f}  "
                f"pixel accuracy {score.pixel_accuracy:.4f}  {time.perf_counter() - self.paused:.0f} s",
                highlight=False,
            )

    def teardown(self, trainer: Trainer, pl_module: SegmentationTraining, stage: str) -> None:
        if self.bar:
            self.bar.stop()
            self.bar = None
