"""Which images and pixels the page shows: the worst and the best by their own mIoU, and what lies deepest in them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nonlocalseg.labels import IGNORE
from nonlocalseg.report.gather import Findings


@dataclass(frozen=True, eq=False)
class Example:
    """One evaluated image. image uint8 [H, W, 3], truth uint8 [H, W] (255 where nothing is labelled), prediction int64
    [H, W]; miou and pixel_accuracy are those of the evaluation."""

    name: str
    miou: float
    pixel_accuracy: float
    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray

    @property
    def wrong(self) -> np.ndarray:
        """bool [H, W]: labelled and not as predicted."""
        return (self.prediction != self.truth) & (self.truth != IGNORE)


@dataclass(frozen=True)
class Examples:
    """Each from the most extreme on."""

    worst: Sequence[Example]
    best: Sequence[Example]


def choose_examples(findings: Findings, count: int) -> Examples:
    """`count` worst and best images; fewer of each where that would show one twice."""
    rows = _ranked(findings)
    each = min(count, max(1, len(rows) // 2))
    best = rows[::-1][: min(each, len(rows) - each)]
    return Examples(*([_opened(findings, row) for row in chosen] for chosen in (rows[:each], best)))


def choose_pixels(findings: Findings, count: int) -> list[tuple[Example, tuple[int, int]]]:
    """`count` images with a pixel (x, y) each: by turns a wrong one in the worst image and a right one in the best,
    then in the next of each; no image twice."""
    rows = _ranked(findings)
    turns = [(i % 2 == 0, rows[i // 2] if i % 2 == 0 else rows[-1 - i // 2]) for i in range(min(count, len(rows)))]
    examples = [(wrong, _opened(findings, row)) for wrong, row in turns]
    return [(example, choose_pixel(example, wrong)) for wrong, example in examples]


def choose_pixel(example: Example, wrong: bool) -> tuple[int, int]:
    """x and y of the pixel deepest inside a region that is wrong (or right, and labelled); in case of none, the reverse.

    Deepest is farthest from every other pixel and from the image's edge; of equals the first in reading order.
    """
    from scipy.ndimage import distance_transform_edt

    right = (example.truth != IGNORE) & ~example.wrong
    regions = (example.wrong, right) if wrong else (right, example.wrong)
    region = regions[0] if regions[0].any() else regions[1]
    depth = np.asarray(distance_transform_edt(np.pad(region, 1)))
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return int(x) - 1, int(y) - 1


def _ranked(findings: Findings) -> list[int]:
    """Rows of the evaluation from the lowest mIoU to the highest, those without a labelled pixel left out."""
    rows = findings.evaluation.images
    scored = [row for row in range(len(rows)) if not math.isnan(rows[row]["miou"])]
    return sorted(scored, key=lambda row: rows[row]["miou"])


def _opened(findings: Findings, row: int) -> Example:
    image, truth = findings.measured.read(row)
    found = findings.evaluation.images[row]
    return Example(found["name"], found["miou"], found["pixel_accuracy"], image, truth, findings.predict(image))
