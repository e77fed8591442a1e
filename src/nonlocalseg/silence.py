"""What is heard: libraries that print or log beside the errors that they raise are silenced, our own notices are not."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_STANDARD_ERROR = threading.Lock()


class Notice(UserWarning):
    """A warning that the command line shows, where it is silent about others."""


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
