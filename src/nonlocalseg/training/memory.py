"""Where memory does not suffice for a step: what would fit, tried out on this machine, in place of a traceback."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning import Trainer

from nonlocalseg.runtime import in_precision, out_of_memory
from nonlocalseg.training.module import SegmentationTraining
from nonlocalseg.training.plan import Plan

SHARES = (7 / 8, 3 / 4, 5 / 8, 1 / 2, 3 / 8, 1 / 4)
"""Of a crop's sides, that are tried where not even one whole crop fits; in multiples of 32 pixels."""


class StepTooLarge(RuntimeError):
    """A step needs more memory than there is; says what fits."""


@contextmanager
def told_what_fits(trainer: Trainer, module: SegmentationTraining, plan: Plan) -> Iterator[None]:
    """Raises StepTooLarge where a step or a validation runs out of memory, on a GPU or not."""
    try:
        yield
    except BaseException as error:
        if not out_of_memory(error):
            raise
        validating = any(frame.name == "validation_step" for frame in traceback.extract_tb(error.__traceback__))
        traceback.clear_frames(error.__traceback__)  # they hold what the step has computed so far
        found = VALIDATION if validating else _what_fits(trainer, module, plan)
        raise StepTooLarge(found) from error


VALIDATION = (
    "memory is full in the validation: make its images smaller by --short-side, or leave it out by --val-split none and "
    "measure afterwards with `nonlocalseg evaluate RUN --mode slide`"
)


def _what_fits(trainer: Trainer, module: SegmentationTraining, plan: Plan) -> str:
    phase, (height, width) = module.phase, module.phase.crop
    most = phase.batch_size // trainer.world_size
    now = most // plan.accumulate
    fewer = [count for count in range(now - 1, 0, -1) if most % count == 0]
    full = f"memory is full with {now} crops of {height}x{width} at once"
    if trainer.world_size > 1:  # the other processes wait for this one
        return f"{full} on each device: try {_of(fewer[0], most, plan) if fewer else 'a smaller --crop'}"
    attempt = _Attempt(trainer, module, plan)
    for count in fewer:
        if attempt.fits(count, phase.crop):
            return f"{full}: {_of(count, most, plan)} fits; it was tried"
    for share in SHARES:
        crop = (max(32, round(share * height) // 32 * 32), max(32, round(share * width) // 32 * 32))
        for count in {now: None, 1: None}:
            if crop != phase.crop and crop[0] <= height and crop[1] <= width and attempt.fits(count, crop):
                divided = "" if count == now else f" with {_of(1, most, plan)}"
                return f"{full}: --crop {crop[0]} {crop[1]}{divided} fits; it was tried"
    return f"{full}, and so it is with every smaller crop that was tried: take a smaller --backbone, or --checkpointing"


def _of(count: int, most: int, plan: Plan) -> str:
    """The options that put `count` images at once, of `most` in a step, on a device."""
    return f"--accumulate {most // count} (or --batch-size {count * plan.accumulate})"


class _Attempt:
    """A step of other sizes, without taking it."""

    def __init__(self, trainer: Trainer, module: SegmentationTraining, plan: Plan) -> None:
        self.module, self.plan, self.device = module, plan, trainer.strategy.root_device
        self.trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.states = 1 if module.phase.optimizer == "sgd" else 2

    def fits(self, count: int, crop: tuple[int, int]) -> bool:
        module = self.module.to(self.device).train()  # Lightning has moved it to the CPU
        try:
            image = torch.zeros(count, 3, *crop, device=self.device)
            label = torch.zeros(count, *crop, dtype=torch.int64, device=self.device)
            optimizer = [torch.empty_like(parameter) for parameter in self.trained for _ in range(self.states)]
            with in_precision(self.device, self.plan.precision):
                loss = module.training_step({"image": image, "label": label}, 0)["loss"]
            loss.backward()
            del optimizer
            return True
        except (RuntimeError, MemoryError, ValueError) as error:
            if out_of_memory(error) or isinstance(error, ValueError):  # batch norm takes no single value
                return False
            raise
        finally:
            module.zero_grad(set_to_none=True)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
