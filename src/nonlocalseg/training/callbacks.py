"""What a run leaves on disk: recipe.yaml, checkpoints, the models; and the average of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import lightning
from lightning import Trainer
from lightning.pytorch.callbacks import WeightAveraging

from nonlocalseg.models.storage import BEST, LAST
from nonlocalseg.training.checkpoints import copy_checkpoint
from nonlocalseg.training.folder import CHECKPOINT, RunFolder
from nonlocalseg.training.module import SegmentationTraining
from nonlocalseg.training.optimisation import moving_average
from nonlocalseg.training.plan import Plan, write_plan

EARLY = 10
"""The step of the first checkpoint, so that little is lost of a run that ends before its first validation."""


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
    """Saves `checkpoints/last.ckpt` and the model as `last/` early and after every validation, `best.ckpt` and `best/`
    where that is better.

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
        self._judge(trainer, pl_module, pl_module.scores.mean_iou)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: SegmentationTraining, outputs: object, batch: object, batch_idx: int
    ) -> None:
        step, phase = trainer.global_step, pl_module.phase
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if not phase.val_split and (step % phase.interval == 0 or step == phase.steps):
            self._judge(trainer, pl_module, None)
        elif step == EARLY < min(phase.interval, phase.steps):
            self._save(trainer, pl_module)

    def _judge(self, trainer: Trainer, module: SegmentationTraining, miou: float | None) -> None:
        better = miou is None or self.best is None or not miou <= self.best
        if better:
            self.best, self.best_step = miou, trainer.global_step
        self._save(trainer, module, better)

    def save_last(self, trainer: Trainer) -> None:
        """Write `last/` and last.ckpt: every process must call it, the first one writes."""
        assert isinstance(trainer.lightning_module, SegmentationTraining)
        self._save(trainer, trainer.lightning_module)

    def _save(self, trainer: Trainer, module: SegmentationTraining, better: bool = False) -> None:
        """Write the models, best.ckpt and at the end last.ckpt: a run that is killed in between goes on from the last.ckpt
        before, and writes them all again."""
        place = self.folder.phase(self.index)
        last, best = place / CHECKPOINT, (place / CHECKPOINT).with_name("best.ckpt")
        if trainer.is_global_zero:
            with self.average.in_the_model(trainer, module) if self.average else nullcontext():
                for name in (LAST, BEST) if better else (LAST,):
                    module.model.save_pretrained(place / name)
        trainer.save_checkpoint(best if better else last)
        if better and trainer.is_global_zero:
            copy_checkpoint(best, last)


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
