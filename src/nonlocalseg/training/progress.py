"""A training on the screen: the loss from the first step on, how long it will take, validations."""

from __future__ import annotations

import time
from typing import Any

import lightning
from lightning import Trainer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from nonlocalseg.training.history import rate_at
from nonlocalseg.training.module import SegmentationTraining

LINE_EVERY = 30.0  # seconds between lines where the output is no terminal
MEASURED = 10
"""Steps over which it is measured how long the rest will take."""


def clock(seconds: float) -> str:
    """1:02:03."""
    minutes, second = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{second:02d}"


class ProgressBar(lightning.Callback):
    """Step, loss, learning rate, images per second, time left; without a terminal a line every half minute."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar: Progress | None = None
        self.shown = self.started = self.paused = self.validating = 0.0
        self.first = self.counted = 0
        self.warm = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: SegmentationTraining) -> None:
        if not trainer.is_global_zero:
            return
        self.first = self.counted = trainer.global_step
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
        now, step, last = time.perf_counter(), trainer.global_step, pl_module.phase.steps
        if not trainer.is_global_zero or step == self.counted:
            return
        self.counted, done = step, step - self.first
        if done == 1:
            self.warm = now
        pace = (now - self.started - self.validating) / done
        if done == MEASURED < last - self.first:
            steady = (now - self.warm) / (done - 1)  # the first step also starts everything
            self.console.print(
                f"{steady:.2g} s a step, measured over {done} steps: about {clock(steady * (last - step))} (h:mm:ss) for the "
                f"remaining {last - step}, validation not counted",
                highlight=False,
            )
        if done > 1 and now - self.shown < (1.0 if self.bar else LINE_EVERY) and step < last:
            return
        self.shown = now
        text = (
            f"loss {float(outputs['loss']):.3f}  rate {rate_at(pl_module.phase, step):.2g}  "
            f"{pl_module.phase.batch_size / pace:.1f} images/s  {clock(pace * (pl_module.phase.steps - step))} left"
        )
        if self.bar:
            self.bar.update(self.bar.task_ids[0], completed=step, text=text)
        else:
            self.console.print(f"step {step}/{last}  {text}", highlight=False)

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
