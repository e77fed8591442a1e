"""Packages that only an extra of the installation brings: what to say where one is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needing(extra: str, what: str) -> Iterator[None]:
    """Imports inside may fail for want of the extra: ValueError in one line that says what needs it and how it comes.

    with needing("video", "clip.mp4: reading videos"):
        import av
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "nonlocalseg":
            raise
        raise ValueError(f"{what} needs the extra {extra}: pip install 'nonlocalseg[{extra}]'") from None
