"""A step whose loss or gradient is no number is never taken: its batch is kept, and the run stops or goes on without it."""

from __future__ import annotations

import math
from typing import Any

import lightning
import torch
from lightning import Trainer
from rich.console import Console
from torch import Tensor

from nonlocalseg.files import writing
from nonlocalseg.runtime import gather
from nonlocalseg.training.data import SegmentationData
from nonlocalseg.training.folder import BROKEN, RunFolder
from nonlocalseg.training.module import SegmentationTraining
from nonlocalseg.training.plan import BrokenSteps
from nonlocalseg.training.together import any_of_all, leave

ABSURD_NORM = 1e8
SKIPPED_STEPS = 25
"""Steps in a row that may be skipped, also by float16's loss scaling while it looks for a scale."""
NAMED, KEPT = 8, 10
"""How many files a message names, and how many batches a process keeps."""


class Soundness(lightning.Callback):
    """Looks at loss and gradient before each step. `policy` says what follows where one of them is broken.

    A skipped step leaves weights, the optimizer's state, and the network's statistics as they were; the schedule and the
    order of the images go on, and `skipped` is set in the module until the next step.
    """

    def __init__(
        self, folder: RunFolder, index: int, images: SegmentationData, policy: BrokenSteps, console: Console
    ) -> None:
        self.folder, self.index, self.images, self.policy, self.console = folder, index, images, policy, console
        self.in_a_row = self.kept = 0
        self._losses: list[Tensor] = []
        self._batches: list[tuple[int, dict[str, Tensor]]] = []  # of the step's parts, by number
        self._statistics: dict[str, Tensor] = {}

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: SegmentationTraining, batch: dict[str, Any], batch_idx: int
    ) -> None:
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self._losses, self._batches, pl_module.skipped = [], [], False
            if self.policy == "skip":
                self._statistics = {name: buffer.clone() for name, buffer in pl_module.model.named_buffers()}
        self._batches.append((batch_idx, batch))

    def on_before_backward(self, trainer: Trainer, pl_module: SegmentationTraining, loss: Tensor) -> None:
        self._losses.append(loss.detach())

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: SegmentationTraining, optimizer: torch.optim.Optimizer
    ) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norms = torch.nn.utils.get_total_norm(gradients)
        loss, norm = torch.stack([torch.stack(self._losses).sum(), norms]).tolist()
        unsound = any_of_all(not math.isfinite(loss), trainer)
        fine = norm < ABSURD_NORM and not unsound  # False for NaN too
        self.in_a_row = 0 if fine else self.in_a_row + 1
        lost = self.in_a_row >= SKIPPED_STEPS
        if fine or (trainer.precision == "16-mixed" and not unsound and not lost):
            return
        what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient norm is {norm:.3g}"
        said = f"step {trainer.global_step + 1}: {what}, with {self._keep(trainer)}"
        if self.policy == "stop" or lost:
            often = f"; {SKIPPED_STEPS} such steps in a row" if lost else ""
            cure = "lower --rate, add --warmup-steps or --gradient-clip, or train with --precision 32"
            skip = "" if lost else "; --broken-steps skip goes on without such steps"
            leave(trainer, ValueError(f"{said}{often}: {cure}{skip}"))
        self.console.print(f"{said}: skipped", highlight=False, markup=False, soft_wrap=True)
        pl_module.skipped = True
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None
        for name, buffer in pl_module.model.named_buffers():
            buffer.copy_(self._statistics[name])

    def _keep(self, trainer: Trainer) -> str:
        """Write the batch of all processes to a file; its images by name, and where it is."""
        files = [
            self.images.file_of(draw)
            for number, _ in self._batches
            for rank in range(trainer.world_size)
            for draw in self.images.batch(number, rank, trainer.world_size)
        ]
        named = ", ".join(files[:NAMED]) + (f" and {len(files) - NAMED} more" if len(files) > NAMED else "")
        if self.kept == KEPT:
            return named
        self.kept += 1
        parts = [
            {name: item.cpu() for name, item in batch.items() if isinstance(item, Tensor)} for _, batch in self._batches
        ]
        step, shares = trainer.global_step + 1, gather(parts)
        path = self.folder.phase(self.index) / BROKEN / f"step-{step}.pt"
        if trainer.is_global_zero:
            with writing(path) as temporary:
                torch.save({"step": step, "files": files, "parts": shares}, temporary)
        return f"{named}; that batch is kept in {path}"
