"""What the verbs share: output, progress bars, and the check of a device before any work is done."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch
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


def check_device(name: str | None) -> torch.device:
    """The device called `name`, by default a GPU where there is one. Raises ValueError for one that is not here."""
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"--device: {name!r} is unknown; give cpu, cuda, cuda:1 or mps") from None
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ValueError(f"--device: there is no {name} here ({count} GPUs); leave it out, or give cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("--device: there is no mps here; leave it out, or give cpu")
    return device


def percent(share: object) -> str:
    """0.5 as 50.00; a dash for what is undefined."""
    return f"{100 * share:.2f}" if isinstance(share, (int, float)) and share == share else "-"


def merged(options: Mapping[str, Any] | None, named: Mapping[str, Any]) -> dict[str, Any] | None:
    """`options` and those of `named` that are given; None where there are none."""
    return {**(options or {}), **{name: value for name, value in named.items() if value is not None}} or None
