"""COCO's run-length masks: runs of 0 and 1 in turn, down the columns, as a list or as compressed text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def decode(mask: Mapping[str, Any]) -> np.ndarray:
    """{"size": [H, W], "counts": list or text} -> bool [H, W].

    Raises `ValueError` for an entry that is missing and for runs that do not fill the mask.
    """
    try:
        height, width = (int(side) for side in mask["size"])
        counts = mask["counts"]
    except (KeyError, TypeError, ValueError):
        raise ValueError("a run-length mask needs `size` [height, width] and `counts`") from None
    runs = _uncompressed(counts) if isinstance(counts, (str, bytes)) else [int(run) for run in counts]
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise ValueError(f"a run-length mask of {sum(runs)} pixels does not fill {width}x{height}")
    values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return values.reshape(width, height).T


def _uncompressed(text: str | bytes) -> list[int]:
    """Five bits a character, the low ones first, 32 for "more follows"; from the fourth run on the change since i-2."""
    codes = text.encode("ascii") if isinstance(text, str) else text
    runs: list[int] = []
    value = shift = 0
    for code in codes:
        bits = code - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs
