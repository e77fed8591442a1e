"""Exceptions as one line for the terminal, and the exit code that belongs to them."""

from __future__ import annotations

import errno
import re

BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130
_CURES = {
    errno.EACCES: "permission denied; choose a place that you may read and write",
    errno.EROFS: "the disk is read-only; choose another place",
    errno.ENOSPC: "no space is left on the disk; free some, or choose another place",
    errno.ENOTDIR: "a part of this path is a file, not a folder; choose another path",
    errno.EISDIR: "is a folder where a file is expected",
    errno.ENOENT: "no such file or folder",
    errno.EEXIST: "is in the way; remove it or choose another path",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
}
_LESS = (
    "look at less at once with --mode slide --crop N or --short-side N, or train with a lower --batch-size or --crop"
)
# Exceptions that only need a name to be explained; their modules are too slow to import here.
_EXPLAINED = {
    "OutOfMemoryError": (f"the GPU's memory is full: {_LESS}", FAILED),
    "MemoryError": (f"memory is full: {_LESS}", FAILED),
    "MisconfigurationException": (None, BAD_INPUT),  # Lightning's ValueError
    "ReaderEnded": (None, FAILED),
    "StepTooLarge": (None, FAILED),
}
# What PyTorch says of processes that have ended.
_FOREIGN = {
    r"(?i)gloo|NCCL|Connection (closed|reset) by peer": (
        "another process of this training has ended; what it said, if it could, stands above; go on with --resume RUN"
    ),
}


def describe(error: BaseException) -> tuple[str, int]:
    """The line to print, and the exit code: 2 for a mistake in what was given, 1 for everything else."""
    name = type(error).__name__
    if name == "RuntimeError":
        from nonlocalseg.runtime import out_of_memory  # torch, which has raised it

        name = "MemoryError" if out_of_memory(error) else name
    if name in _EXPLAINED:
        text, code = _EXPLAINED[name]
        return f"error: {text or one_line(error)}", code
    for words, explanation in _FOREIGN.items():
        if isinstance(error, RuntimeError) and re.search(words, str(error)):
            return f"error: {explanation}", FAILED
    if isinstance(error, (ValueError, OSError)):
        return f"error: {one_line(error)}", BAD_INPUT
    return f"internal error: {name}: {one_line(error)} (run again with --debug to see where)", FAILED


def one_line(error: BaseException) -> str:
    """The message in one line: of an error in a worker process only what it says itself, not the traceback in it."""
    if isinstance(error, OSError) and error.strerror:
        reason = _CURES.get(error.errno or 0, error.strerror)
        named = str(error.filename).replace("\n", "\\n")  # a name may hold anything
        return f"{named}: {reason}" if error.filename else reason
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if any("Traceback (most recent call last)" in line for line in lines):
        kind, _, text = lines[-1].partition(": ")  # as Python ends a traceback
        lines = [text if kind.endswith(("Error", "Exception", "Warning")) else lines[-1]]
    return " ".join(lines) or type(error).__name__


def interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind `error`; Lightning turns it into a SystemExit."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False
