"""Files by path or by address (s3://, https://, memory:// ...), through fsspec."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


@contextmanager
def opened(place: str) -> Iterator[Any]:
    """A file or address to read bytes of, at any position. Raises FileNotFoundError and ConnectionError, ValueError for
    a kind of address whose package is missing."""
    if not ADDRESS.match(place):
        with open(place, "rb") as file:
            yield file
        return
    with reached(place):
        import fsspec

        with fsspec.open(place, "rb") as file:
            yield file


@contextmanager
def reached(place: str) -> Iterator[None]:
    """What goes wrong on the way to an address, in one line."""
    try:
        yield
    except tarfile.TarError:
        raise
    except FileNotFoundError as error:
        if str(error).startswith(place):
            raise
        raise FileNotFoundError(f"{place}: not there, or nobody answers") from None
    except Exception as error:
        if str(error).startswith(place):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, ImportError) or "Protocol not known" in reason:
            raise ValueError(f"{place}: {reason}") from None
        raise ConnectionError(f"{place}: cannot be read ({reason})") from None
