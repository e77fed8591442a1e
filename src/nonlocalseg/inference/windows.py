"""Where the windows of a view lie in an image, and how many of them see each pixel.

The grid is that of the evaluation code published with ANN (arXiv:1908.07678) and GALD (arXiv:1909.07229).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import EllipsisType
from typing import NamedTuple

import torch
from torch import Tensor

from nonlocalseg.view import View

Span = tuple[int, int]  # first pixel, one past the last

DEFAULT_STRIDE = 2 / 3  # of the crop


class Window(NamedTuple):
    """A rectangle of pixels; bottom and right are one past the last."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def area(self) -> tuple[EllipsisType, slice, slice]:
        """Its index in a tensor [..., H, W]."""
        return ..., slice(self.top, self.bottom), slice(self.left, self.right)

    def mirrored(self, width: int) -> Window:
        """Where it lies in the mirror image of an image of that width."""
        return self._replace(left=width - self.right, right=width - self.left)


@dataclass(frozen=True)
class Grid:
    """Windows in an image of `size` (height, width): each is one of the rows and one of the columns."""

    size: tuple[int, int]
    rows: tuple[Span, ...]
    columns: tuple[Span, ...]

    def __iter__(self) -> Iterator[Window]:
        for row in self.rows:
            yield from self.across(row)

    @property
    def whole(self) -> Window:
        """The image itself."""
        return Window(0, self.size[0], 0, self.size[1])

    @property
    def parts(self) -> tuple[Span, ...]:
        """Of each row of windows the rows of pixels that no later one sees."""
        ends = [*(top for top, _ in self.rows[1:]), self.size[0]]
        return tuple((top, end) for (top, _), end in zip(self.rows, ends, strict=True))

    def across(self, row: Span) -> Iterator[Window]:
        """The windows of one row."""
        for left, right in self.columns:
            yield Window(*row, left, right)

    def counts(self) -> tuple[Tensor, Tensor]:
        """How many rows hold each line of pixels, float32 [H], and how many columns, [W]."""
        return _counts(self.rows, self.size[0]), _counts(self.columns, self.size[1])

    def mirrored(self) -> Grid:
        """Where the mirrored image's windows lie in the image itself."""
        width = self.size[1]
        return replace(self, columns=tuple((width - end, width - start) for start, end in self.columns))


def grid_of(view: View, size: tuple[int, int]) -> Grid:
    """The windows of a view in an image of that height and width."""
    crop = view.crop or size
    too_small = view.small == "whole" and any(side > length for side, length in zip(crop, size, strict=True))
    sides = size if too_small else crop
    steps = view.stride or (DEFAULT_STRIDE, DEFAULT_STRIDE)
    rows, columns = (_spans(*one) for one in zip(size, sides, steps, strict=True))
    return Grid(size, rows, columns)


def _spans(length: int, side: int, step: int | float) -> tuple[Span, ...]:
    step = max(1, round(step * side)) if isinstance(step, float) else step
    side = min(side, length)
    starts = (min(i * step, length - side) for i in range(math.ceil((length - side) / step) + 1))
    return tuple((start, start + side) for start in starts)


def _counts(spans: tuple[Span, ...], length: int) -> Tensor:
    counts = torch.zeros(length)
    for start, end in spans:
        counts[start:end] += 1
    return counts
