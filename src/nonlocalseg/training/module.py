"""One optimizer step and one validated image: the LightningModule around a Segmenter (ANN 4.1, official code)."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from nonlocalseg.inference import infer
from nonlocalseg.losses import SegmentationLoss
from nonlocalseg.metrics import Scores, SegmentationMetric
from nonlocalseg.training.datamodule import mix_seed
from nonlocalseg.training.groups import parameter_groups
from nonlocalseg.training.recipes import Phase

ABSURD_NORM = 1e8
SKIPPED_STEPS = 25
"""Steps in a row that float16's loss scaling may skip while it looks for a scale."""


def poly_factor(step: int, phase: Phase) -> float:
    """Factor of the learning rate at `step`: linear warm-up, then (1 - step / steps)^power, at least min_rate."""
    poly = max(0.0, 1 - step / phase.steps) ** phase.power
    warm = min(1.0, (step + 1) / (phase.warmup_steps + 1))
    return max(poly * warm, phase.min_rate / phase.rate)


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """Moving average of weights and buffers; the decay grows from 0.1 so that early averages forget the start."""

    def average(old: Tensor, new: Tensor, updates: Tensor | int) -> Tensor:
        now = min(decay, (1 + int(updates)) / (10 + int(updates)))
        return old + (new - old) * (1 - now) if old.is_floating_point() else new

    copy = AveragedModel(model, avg_fn=average, use_buffers=True)
    return copy.requires_grad_(False)  # or DDP would wait for its gradients


def phase_loss(phase: Phase, num_classes: int) -> SegmentationLoss:
    """The loss of a phase; ValueError where its options do not fit each other or the number of classes."""
    if phase.class_weights is not None and len(phase.class_weights) != num_classes:
        raise ValueError(
            f"class_weights has {len(phase.class_weights)} numbers for {num_classes} classes: give one each"
        )
    return SegmentationLoss(
        ohem=phase.ohem,
        threshold=phase.ohem_threshold,
        min_kept=phase.ohem_min_kept,
        rule=phase.ohem_rule,  # pyright: ignore[reportArgumentType]  # checked there
        auxiliary_weight=phase.auxiliary_weight,
        class_weights=phase.class_weights,
        terms=phase.terms,
        average=phase.loss_average,  # pyright: ignore[reportArgumentType]
    )


class SegmentationTraining(lightning.LightningModule):
    """Trains `model` as `phase` says. `evaluated` is what validation sees: the average where there is one."""

    def __init__(self, model: nn.Module, phase: Phase, seed: int, channels_last: bool = False) -> None:
        super().__init__()
        self.model, self.phase, self.seed, self.channels_last = model, phase, seed, channels_last
        self.ema = averaged(model, phase.ema) if phase.ema else None
        self.loss = phase_loss(phase, model.num_classes)  # pyright: ignore[reportArgumentType]
        self.metric = SegmentationMetric(model.num_classes)  # pyright: ignore[reportArgumentType]
        self.scores: Scores | None = None
        self._skipped = 0
        for module in self._frozen():
            module.requires_grad_(False)
        self.train()  # Lightning does not call it before the first step

    @property
    def evaluated(self) -> nn.Module:
        return self.model if self.ema is None else self.ema.module

    def _frozen(self) -> list[nn.Module]:
        """The modules that training must leave as they are."""
        norms = [m for m in self.model.modules() if isinstance(m, (nn.BatchNorm2d, nn.SyncBatchNorm))]
        return norms * self.phase.frozen_batchnorm + [self.model.backbone] * self.phase.frozen_backbone  # pyright: ignore

    def train(self, mode: bool = True) -> SegmentationTraining:
        super().train(mode)
        if self.ema is not None:
            self.ema.eval()
        for module in self._frozen():
            module.eval()
        return self

    def configure_optimizers(self) -> Any:
        phase, groups = self.phase, parameter_groups(self.model, self.phase)
        if phase.optimizer == "sgd":
            optimizer = torch.optim.SGD(groups, lr=phase.rate, momentum=0.9)
        else:
            optimizer = torch.optim.AdamW(groups, lr=phase.rate)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: poly_factor(step, phase))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Dropout and random sampling depend on seed, batch and rank alone, so a resumed run draws the same."""
        torch.manual_seed(mix_seed(self.seed, batch_idx, self.global_rank))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        images = batch["image"]
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return self.loss(self.model(images), batch["label"])

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Stop instead of training on with weights that a broken gradient has ruined."""
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients))
        fine = norm < ABSURD_NORM  # False for NaN too
        self._skipped = 0 if fine else self._skipped + 1
        if fine or (self.trainer.precision == "16-mixed" and self._skipped < SKIPPED_STEPS):
            return
        raise ValueError(
            f"the gradient norm at step {self.global_step} is {norm:.3g}: lower --rate, add --warmup_steps or "
            "--gradient_clip, or train with --precision 32"
        )

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.ema is not None and (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0:
            self.ema.update_parameters(self.model)
        if self.global_step >= self.phase.steps:
            self.trainer.should_stop = True  # makes Lightning validate the last step, whatever the interval

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        if "label" in batch:
            logits = infer(
                self.evaluated,
                batch["image"],
                align_corners=self.model.align_corners,  # pyright: ignore
                short_side=self.phase.short_side,
            )
            self.metric.update(logits.argmax(1), batch["label"])

    def on_validation_epoch_end(self) -> None:
        self.scores = self.metric.compute()
        self.metric.reset()
