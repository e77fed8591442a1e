"""A training in processes that kill themselves one after the other, each at a worse moment; run by test_interruptions.py."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from small_run import SMALL

from nonlocalseg.training.module import SegmentationTraining
from nonlocalseg.training.runs import train

OPTIONS: dict[str, Any] = {**SMALL, "steps": 9, "ema": 0.9}
DIED = 77
"""Of a process that met its moment and lives on."""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def put_in_place(name: str, done: bool) -> Callable[[], None]:
    """Dies when a file of this name is to be put in its place, or has just been."""

    def arm() -> None:
        original = os.replace

        def deadly(source: Any, target: Any) -> None:
            if done:
                original(source, target)
            if str(target).endswith(name):
                die()
            if not done:
                original(source, target)

        os.replace = deadly

    return arm


def half_written() -> None:
    """Dies with half of a checkpoint on the disk."""
    original = torch.save

    def deadly(content: object, file: Any, **others: Any) -> None:
        original(content, file, **others)
        file.flush()
        os.ftruncate(file.fileno(), file.tell() // 2)
        die()

    torch.save = deadly


def in_step(number: int) -> Callable[[], None]:
    def arm() -> None:
        original = SegmentationTraining.training_step

        def deadly(self: SegmentationTraining, batch: Any, batch_idx: int) -> Any:
            if batch_idx == number:
                die()
            return original(self, batch, batch_idx)

        SegmentationTraining.training_step = deadly

    return arm


MOMENTS: dict[str, Callable[[], None]] = {
    "before the first step": put_in_place("recipe.yaml", done=True),
    "within the first model": put_in_place("last/model.safetensors", done=True),
    "before the first checkpoint": put_in_place("checkpoints/last.ckpt", done=False),
    "between two checkpoints": in_step(5),
    "within a checkpoint": half_written,
    "between weights and their config": put_in_place("last/model.safetensors", done=True),
    "between two names of a checkpoint": put_in_place("checkpoints/previous.ckpt", done=True),
    "in the last step": in_step(8),
}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    for number, (moment, arm) in enumerate(MOMENTS.items()):
        child = os.fork()
        if not child:
            arm()
            train(**OPTIONS, out=folder) if number == 0 else train(resume=folder, progress=False)
            os._exit(DIED)
        status = os.waitpid(child, 0)[1]
        if not os.WIFSIGNALED(status):
            sys.exit(f"{moment}: the process ended with {status} and was not killed")
        print(moment, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
