"""The page's latest photographs and answers, in memory only: the oldest go first, all of them after half an hour."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np

from nonlocalseg.serving.answer import Answer
from nonlocalseg.serving.limits import Refused
from nonlocalseg.serving.line import Job

AGE = 30 * 60.0
"""Seconds after which an answer that nobody asks for goes."""
MOST = 500
"""Entries, however small."""


@dataclass(frozen=True, eq=False)
class Result:
    """The photograph uint8 [H, W, 3], what its file is called, and what each model says of it."""

    name: str
    image: np.ndarray
    answers: list[Answer]

    @property
    def size(self) -> int:
        """Bytes."""
        return self.image.nbytes + sum(a.mask.nbytes + a.probability.nbytes for a in self.answers)


@dataclass(eq=False)
class Entry:
    job: Job[Result]
    used: float = field(default_factory=time.monotonic)


class Shelf:
    """Jobs and their results by a token that nobody can guess."""

    def __init__(self, most_bytes: float) -> None:
        self._most, self._entries = most_bytes, OrderedDict[str, Entry]()
        self._lock = threading.Lock()

    def put(self, job: Job[Result]) -> str:
        token = secrets.token_urlsafe(16)
        with self._lock:
            self._entries[token] = Entry(job)
        self.tidy()
        return token

    def job(self, token: str) -> Job[Result]:
        """Raises `Refused` for a token that is unknown, or whose answer has gone."""
        self.tidy()
        with self._lock:
            entry = self._entries.get(token)
            if entry is None:
                raise Refused(404, "this answer is no longer kept: give the photograph once more")
            entry.used = time.monotonic()
            self._entries.move_to_end(token)
            return entry.job

    def result(self, token: str) -> Result:
        found = _finished(self.job(token))
        if found is None:
            raise Refused(409, "this photograph has no answer yet")
        return found

    def tidy(self) -> None:
        """Let go of what is old, and of the least used where all is too much; of the latter the newest always stays."""
        with self._lock:
            oldest = time.monotonic() - AGE
            for token in [t for t, entry in self._entries.items() if entry.used < oldest and _ended(entry.job)]:
                del self._entries[token]
            sizes = {token: _size(entry.job) for token, entry in self._entries.items()}
            total = sum(sizes.values())
            for token in list(self._entries)[:-1]:
                if _ended(self._entries[token].job) and (total > self._most or len(self._entries) > MOST):
                    del self._entries[token]
                    total -= sizes[token]


def _ended(job: Job[Result]) -> bool:
    return job.future is not None and job.future.done()


def _finished(job: Job[Result]) -> Result | None:
    return job.future.result() if job.future is not None and job.state == "done" else None


def _size(job: Job[Result]) -> int:
    found = _finished(job)
    return 0 if found is None else found.size
