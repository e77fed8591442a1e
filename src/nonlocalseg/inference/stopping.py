"""Ctrl-C and `kill` as a question that a long job asks between two steps, so that it can end in order."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopping:
    """Inside, a first signal is noted; a second Ctrl-C raises KeyboardInterrupt at once.

    with Stopping() as stopping:
        while not stopping.asked(): ...
    """

    def __init__(self) -> None:
        self._told = threading.Event()
        self._before: dict[int, Any] = {}

    def ask(self) -> None:
        """As a signal does."""
        self._told.set()

    def asked(self) -> bool:
        return self._told.is_set()

    def wait(self, seconds: float) -> bool:
        """`asked`, after that time, or as soon as it is so."""
        return self._told.wait(seconds)

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._told.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._told.set()
