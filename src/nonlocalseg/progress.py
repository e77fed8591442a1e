"""How far a long job is, on standard error: a bar on a terminal, and a line now and then where that is a file or a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

T = TypeVar("T")

PAUSE = 10.0
"""Seconds between two lines."""


def track(items: Iterable[T], label: str, count: int | None = None, quiet: bool = False) -> Iterable[T]:
    """`items`, which are counted on standard error as they are taken. `count` is their number where they do not know it."""
    if quiet:
        return items
    if count is None and isinstance(items, Sized):
        count = len(items)
    if not sys.stderr.isatty():
        return _told(items, label, count)
    from rich.console import Console
    from rich.progress import track as bar

    return bar(items, label, count, console=Console(stderr=True), transient=True)


def _told(items: Iterable[T], label: str, count: int | None) -> Iterator[T]:
    start = last = time.monotonic()
    for number, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= PAUSE:
            last, of, left = now, "", ""
            if count is not None:
                of, left = f" of {count}", f", about {_duration((count - number) * (now - start) / number)} left"
            print(f"{label}: {number}{of}{left}", file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 100 else f"{minutes} min" if minutes < 100 else f"{minutes / 60:.1f} h"
