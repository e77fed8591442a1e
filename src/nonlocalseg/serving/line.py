"""Requests in line: a bounded number is received, waits or runs, one at a time meets the models; each can be stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from nonlocalseg.serving.limits import Refused

T = TypeVar("T")
WAIT = 5
"""Seconds after which a client that was told "busy" may ask again."""


class Stopped(Exception):
    """The request was cancelled."""


class Line:
    """A place in it is taken before a request's body is read, so that memory is bounded by their number."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._jobs: set[Job] = set()
        self._lock = threading.Lock()
        self._worker = ThreadPoolExecutor(1, "models")

    @property
    def taken(self) -> int:
        """How many places are taken."""
        return len(self._jobs)

    def enter(self) -> Job:
        """A place. Raises `Refused`, busy, where there is none."""
        with self._lock:
            if len(self._jobs) >= self.size:
                raise Refused(503, f"busy: {self.size} requests are in line; try again in a few seconds", WAIT)
            job = Job(self)
            self._jobs.add(job)
            return job

    def leave(self, job: Job) -> None:
        with self._lock:
            self._jobs.discard(job)

    def start(self, work: Callable[[], T]) -> Future[T]:
        return self._worker.submit(work)

    def close(self) -> None:
        """Stop everything that waits or runs."""
        with self._lock:
            jobs = list(self._jobs)
        for job in jobs:
            job.stop()
        self._worker.shutdown(wait=False, cancel_futures=True)


class Progress:
    """How far a request is, and the way to stop it.

    done, total: passes through the models; total is 0 until it is known.
    """

    def __init__(self) -> None:
        self.done = self.total = 0
        self._stop = threading.Event()

    def before_pass(self) -> None:
        """To be called before every pass through a model. Raises `Stopped` once the request was stopped."""
        if self._stop.is_set():
            raise Stopped
        self.done += 1


class Job(Progress, Generic[T]):
    """One request in line, and what it came to."""

    def __init__(self, line: Line) -> None:
        super().__init__()
        self._line = line
        self.future: Future[T] | None = None

    def start(self, work: Callable[[Job[T]], T]) -> Future[T]:
        """Runs `work` when its turn comes; the place is free again when it has ended, however it did."""
        self.future = self._line.start(lambda: work(self))
        self.future.add_done_callback(lambda _: self.leave())
        return self.future

    def leave(self) -> None:
        self._line.leave(self)

    def stop(self) -> None:
        """A job that waits ends now, one that runs before its next pass."""
        self._stop.set()
        if self.future is not None:
            self.future.cancel()

    @property
    def state(self) -> str:
        """waiting, running, done, failed or cancelled."""
        future = self.future
        if future is None or not (future.running() or future.done()):
            return "cancelled" if self._stop.is_set() else "waiting"
        if not future.done():
            return "running"
        if future.cancelled() or isinstance(future.exception(), Stopped):
            return "cancelled"
        return "failed" if future.exception() is not None else "done"
