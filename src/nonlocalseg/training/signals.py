"""Signals during a training: the step is finished, a checkpoint written, and the exit code is the signal's."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import lightning
from lightning import LightningModule, Trainer

from nonlocalseg.runtime import gather
from nonlocalseg.training.together import any_of_all, leave

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")  # Ctrl-C; kill and most schedulers; a closed terminal; SLURM
SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))


class LeaveOnSignal(lightning.Callback):
    """Leaves with SystemExit(128 + signal) after the step during which a signal came and `save` has been called, and
    after the validation where one follows that step.

    Ctrl-C a second time leaves at once. With several processes all leave after the same step, whichever was told.
    """

    def __init__(self, save: Callable[[Trainer], None], validates_after: Callable[[int], bool]) -> None:
        self.save, self.validates_after = save, validates_after
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if (batch_idx + 1) % trainer.accumulate_grad_batches or step >= trainer.max_steps:
            return
        if any_of_all(self.received is not None, trainer):
            self.save(trainer)
            if not self.validates_after(step):  # a resumed run would leave that one out
                self._leave(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if any_of_all(self.received is not None, trainer) and trainer.global_step < trainer.max_steps:
            self.save(trainer)
            self._leave(trainer)

    def _leave(self, trainer: Trainer) -> None:
        numbers = [number for number in gather(self.received) if number is not None]
        leave(trainer, SystemExit(128 + numbers[0]))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """Where no step is under way, before a training has begun and between its phases, the signals that would kill the
    process end it by SystemExit(128 + signal), so that what it has made is cleared away."""

    def leave_now(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        deadly = [number for number in SIGNALS if signal.getsignal(number) == signal.SIG_DFL]
        before = {number: signal.signal(number, leave_now) for number in deadly}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_signals(worker: int) -> None:
    """In a process that reads images: the training decides when it ends, also where a whole group is told to."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
