"""One optimizer step and one validated image: the LightningModule around a Segmenter (ANN 4.1, official code)."""

from __future__ import annotations

from typing import Any, Self

import lightning
import torch
from torch import Tensor, nn

from nonlocalseg.inference.engine import infer
from nonlocalseg.metrics import Scores, SegmentationMetric
from nonlocalseg.models.segmenter import Segmenter
from nonlocalseg.recipes.schema import Phase
from nonlocalseg.training.data import mix_seed
from nonlocalseg.training.optimisation import make_optimizer, phase_loss, poly_factor
from nonlocalseg.training.together import stop_for


class SegmentationTraining(lightning.LightningModule):
    """Trains `model` as `phase` says; `scores` are those of the last validation, `skipped` whether the step was left out."""

    def __init__(self, model: Segmenter, phase: Phase, seed: int, channels_last: bool = False) -> None:
        super().__init__()
        self.model, self.phase, self.seed, self.channels_last = model, phase, seed, channels_last
        self.loss = phase_loss(phase, model.num_classes, model.head.loss_weights)
        self.metric = SegmentationMetric(model.num_classes)
        self.view = phase.view
        self.scores: Scores | None = None
        self.skipped = False
        self._unreadable: str | None = None
        for module in self._frozen():
            module.requires_grad_(False)
        self.train()  # Lightning does not call it before the first step

    def _frozen(self) -> list[nn.Module]:
        """The modules that training must leave as they are."""
        norms = [m for m in self.model.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm))]
        backbone = [self.model.backbone] if self.phase.frozen_backbone else []
        return [*(norms if self.phase.frozen_batchnorm else []), *backbone]

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for module in self._frozen():
            module.eval()
        return self

    def configure_optimizers(self) -> Any:
        optimizer = make_optimizer(self.model, self.phase)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: poly_factor(step, self.phase))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        """A resumed run goes on with the rates and decays of its plan, not with those that the checkpoint holds."""
        optimizer, schedule = self.trainer.optimizers[0], self.trainer.lr_scheduler_configs[0].scheduler
        assert isinstance(schedule, torch.optim.lr_scheduler.LambdaLR)
        planned = make_optimizer(self.model, self.phase).param_groups
        schedule.base_lrs = [group["lr"] for group in planned]
        factor = poly_factor(schedule.last_epoch, self.phase)
        for group, plan in zip(optimizer.param_groups, planned, strict=True):
            group.update(lr=plan["lr"] * factor, initial_lr=plan["lr"], weight_decay=plan["weight_decay"])

    def on_train_batch_start(self, batch: object, batch_idx: int) -> None:
        """Stop where a file cannot be read, in whichever process.

        Dropout and random sampling depend on seed, batch and rank alone, so a resumed run draws the same.
        """
        assert isinstance(batch, dict)
        stop_for(batch.get("error"), self.trainer)
        torch.manual_seed(mix_seed(self.seed, batch_idx, self.global_rank))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        images = batch["image"]
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return self.loss(self.model(images), batch["label"])

    def on_train_batch_end(self, outputs: object, batch: object, batch_idx: int) -> None:
        if self.global_step >= self.phase.steps:
            self.trainer.should_stop = True  # makes Lightning validate the last step, whatever the interval

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self._unreadable = self._unreadable or batch.get("error")
        if "label" in batch:
            logits = infer(self.model, batch["image"], self.view, align_corners=self.model.align_corners)
            self.metric.update(logits.argmax(1), batch["label"])

    def on_validation_epoch_end(self) -> None:
        stop_for(self._unreadable, self.trainer)
        self.scores = self.metric.compute()
        self.metric.reset()
