"""The usual mistakes in label images, each with its name and its cure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nonlocalseg.data.dataset import SegmentationDataset
from nonlocalseg.labels import IGNORE, LabelError, RawValue, spell_counts

_MOSTLY = 0.8  # this share of the unknown pixels lies between its neighbours where a mask was smoothed


@dataclass(frozen=True)
class Problem:
    """One thing to mend: the kind of mistake, the file, and what to do about it."""

    name: str
    file: str
    message: str


def unreadable(file: str, error: Exception) -> Problem:
    return Problem("unreadable", file, str(error).removeprefix(f"{file}: "))


def misfits(file: str, raw: np.ndarray, error: LabelError) -> list[Problem]:
    """The names of the mistakes behind a label that the class map does not fit."""
    if not error.counts and raw.ndim == 3:
        cure = "list its colours in the class map, or save the masks as grey or palette PNG"
        return [Problem("RGB instead of values", file, f"the mask holds colours where values are expected; {cure}")]
    if not error.counts:
        cure = "list the values in the class map, or convert the masks to RGB"
        message = "a grey or palette mask (palettes are read as indices) where colours are expected"
        return [Problem("values instead of RGB", file, f"{message}; {cure}")]
    unknown = dict(error.counts)
    problems = []
    if raw.ndim == 2 and 255 in unknown and _black_and_white(raw):
        message = f"a black and white mask: 255 in {unknown.pop(255)} pixels has no class"
        problems.append(Problem("0/255 mask", file, f"{message}; map it (masks: {{0: background, 255: thing}})"))
    if unknown and smoothed(raw, unknown):
        message = f"{spell_counts(unknown)}: mixtures along the edges of the classes, as smoothing makes them"
        cure = "export without anti-aliasing, and resize masks with nearest neighbour only"
        problems.append(Problem("anti-aliased mask", file, f"{message}; {cure}"))
    elif unknown:
        hint = "add it to the class map (or `ignore` it), or repair the mask"
        problems.append(Problem("unknown value", file, f"{spell_counts(unknown)}; {hint}"))
    return problems


def _black_and_white(raw: np.ndarray) -> bool:
    """Whether a mask holds 0 and 255, and else nothing but what smoothed edges have."""
    others = set(np.unique(raw).tolist()) - {0, 255}
    return not others or (2 * np.isin(raw, [0, 255]).sum() > raw.size and smoothed(raw, others))


def smoothed(raw: np.ndarray, unknown: Iterable[RawValue]) -> bool:
    """Whether pixels of the unknown values lie between those around them, as at anti-aliased or interpolated edges."""
    from scipy.ndimage import maximum_filter, minimum_filter

    around = (3, 3, 1)[: raw.ndim]
    values = [list(value) if isinstance(value, tuple) else value for value in unknown]
    if raw.ndim == 3:
        packed = raw.astype(np.int32) @ np.array([65536, 256, 1])
        lost = np.isin(packed, np.array(values) @ np.array([65536, 256, 1]))
    else:
        lost = np.isin(raw, values)
    low, high = minimum_filter(raw, around)[lost], maximum_filter(raw, around)[lost]
    found = raw[lost]
    between = (low < found) & (found < high)
    between = between.any(-1) if raw.ndim == 3 else between
    return len(found) > 0 and len(values) > 1 and between.mean() >= _MOSTLY


def lossy(files: Iterable[Path]) -> list[Path]:
    """Those of the label images that are JPEG, whatever they are called."""
    found = []
    for file in files:
        try:
            with file.open("rb") as opened:
                found += [file] if opened.read(2) == b"\xff\xd8" else []
        except OSError:
            continue  # it is named as unreadable elsewhere
    return found


def jpeg_masks(files: list[Path]) -> Problem:
    count = f"{len(files)} label images are JPEG" if len(files) > 1 else "this label image is JPEG"
    cure = "export the masks again, as PNG (a JPEG saved as PNG stays blurred)"
    return Problem("JPEG masks", str(files[0]), f"{count}, which blurs values and cannot hold labels; {cure}")


def off_by_one(dataset: SegmentationDataset, values: Mapping[int, int], unknown: Counter[RawValue]) -> Problem | None:
    """Whether the unknown values of a whole split vanish when all values move by one; values: those seen, with pixels."""
    known = dataset.labels.meaning.values
    if not unknown or not known or not values:
        return None
    keys, seen = set(known), set(values)
    file = str(dataset.pairs[0].label.parent if dataset.pairs[0].label else dataset.root)
    if set(unknown) == {max(keys) + 1} and {value - 1 for value in seen - {0}} <= keys and len(seen) > 2:
        message = (
            f"values reach {max(seen)}, the class map ends at {max(keys)}: they seem to start at 1, with 0 for void"
        )
        return Problem("labels off by one", file, f"{message}; raise every value of the class map by one")
    starts_at_one = known.get(0) == IGNORE and 1 in keys
    if set(unknown) == {255} and starts_at_one and 0 in seen and max(keys) not in seen and len(seen) > 2:
        message = f"value {max(keys)} never occurs, 0 and 255 do: zero seems to be a class here and 255 void"
        return Problem("labels off by one", file, f"{message}; lower every value of the class map by one")
    return None
