"""What the verbs print with: output, progress bars, and figures as text."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")


def output() -> Console:
    """Standard output; wide enough for tables where it is no terminal."""
    from rich.console import Console

    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 120)


def say(message: str) -> None:
    """A line on standard error."""
    print(message, file=sys.stderr, flush=True)


def track(items: Iterable[T], label: str, count: int | None = None) -> Iterable[T]:
    """`items` behind a progress bar on standard error; nothing is shown where that is no terminal.

    `count` is their number where they do not know it.
    """
    if not sys.stderr.isatty():
        return items
    from rich.console import Console
    from rich.progress import track

    return track(items, label, count, console=Console(stderr=True), transient=True)


def first_process() -> bool:
    """Of the processes that torchrun or Lightning started, one prints."""
    from nonlocalseg.runtime import rank

    return rank() == 0


def percent(share: object) -> str:
    """0.5 as 50.00; a dash for what is undefined."""
    return f"{100 * share:.2f}" if isinstance(share, (int, float)) and share == share else "-"
