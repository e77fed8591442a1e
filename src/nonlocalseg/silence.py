"""Libraries that print or log beside the errors that they raise, silenced for a block."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_STANDARD_ERROR = threading.Lock()


@contextmanager
def quietly() -> Iterator[None]:
    """Nothing reaches standard error: libtiff and onnxruntime write lines of their own there."""
    with _STANDARD_ERROR, open(os.devnull, "wb") as nothing:
        kept = os.dup(2)
        try:
            os.dup2(nothing.fileno(), 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


@contextmanager
def unlogged() -> Iterator[None]:
    """Without the warnings of libraries that log through the root."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
