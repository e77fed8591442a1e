"""COCO's run-length masks: runs of 0 and 1 in turn, down the columns, as a list or as compressed text."""

from __future__ import annotations

import numpy as np
from typing_extensions import TypedDict  # pydantic reads those of `typing` from Python 3.12 on only

from nonlocalseg.images import check_size

_LONGEST = 10  # characters of one number: 50 bits


class RunLengths(TypedDict):
    """size: height and width. counts: the runs."""

    size: tuple[int, int]
    counts: list[int] | str


def decode(mask: RunLengths, size: tuple[int, int]) -> np.ndarray:
    """The mask of an image of `size`, height and width, as bool [H, W].

    Raises `ValueError` for a mask of another size and for runs that do not fill it, before memory is taken.
    """
    height, width = size
    if tuple(mask["size"]) != (height, width):
        raise ValueError(f"a mask is {tuple(mask['size'])}, its image {(height, width)} (height, width)")
    check_size(width, height)
    counts = mask["counts"]
    return filled(_uncompressed(counts) if isinstance(counts, str) else counts, (width, height)).T


def filled(runs: list[int], size: tuple[int, int]) -> np.ndarray:
    """What `runs_of` was given, bool of this size. Raises `ValueError` for runs that do not fill it."""
    if min(runs, default=0) < 0 or sum(runs) != size[0] * size[1]:
        raise ValueError(f"a run-length mask of {sum(runs)} pixels does not fill {size[0]}x{size[1]}")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(size)


def encode(mask: np.ndarray) -> RunLengths:
    """The mask bool [H, W] as compressed text."""
    height, width = mask.shape
    return {"size": (height, width), "counts": _compressed(runs_of(mask.T))}


def runs_of(mask: np.ndarray) -> list[int]:
    """The lengths of the runs in bool [...], row by row, of 0 and 1 in turn; the first is 0 where it begins with 1."""
    flat = mask.ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate(([0], edges, [flat.size]))).tolist()
    return [0, *runs] if flat.size and flat[0] else runs


def _compressed(runs: list[int]) -> str:
    """What `_uncompressed` reads."""
    found: list[str] = []
    for place, run in enumerate(runs):
        value = run - runs[place - 2] if place > 2 else run
        while True:
            bits, value = value & 31, value >> 5
            done = value == (-1 if bits & 16 else 0)
            found.append(chr(48 + (bits if done else bits | 32)))
            if done:
                break
    return "".join(found)


def _uncompressed(text: str) -> list[int]:
    """Five bits a character, the low ones first, 32 for "more follows"; from the fourth run on the change since i-2."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 5 * _LONGEST:
            raise ValueError("the counts of a run-length mask are no compressed numbers")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs
