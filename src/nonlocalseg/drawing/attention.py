"""Figures of what a model attends to and of its masks, as numbers over the photograph (ANN Fig. 5, GALD Fig. 7-11).

Weights are shown by `shades`, one hue that darkens evenly, multiplied with a pale grey copy of the photograph; every
such picture has a bar with the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from nonlocalseg.drawing._panels import Pixel, bar, bare, extent, new_figure, outline, painted, shares, show
from nonlocalseg.drawing.colours import shades

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def anchors_picture(
    image: np.ndarray,
    pixel: Pixel,
    weights: ArrayLike,
    boxes: ArrayLike,
    levels: ArrayLike,
    listed: Sequence[tuple[int, str]] = (),
    title: str = "Attention",
) -> Figure:
    """The weights [S] that `pixel` gives to regions of the image uint8 [H, W, 3], each drawn where it lies.

    boxes: [S, 4] left, top, right, bottom in pixels. levels: [S] int, n for the cells of an n x n grid, 0 for single
    positions; every level has a panel. listed: index and text of the regions that are outlined and listed, in order.
    """
    weight, box, level = np.asarray(weights, np.float64), np.asarray(boxes, np.float64), np.asarray(levels)
    present = sorted(set(level.tolist()))
    columns = 1 + math.ceil(len(present) / 2)
    one_row = len(present) == 1
    figure, grid = new_figure(image, columns, 1 if one_row else 2, title, 0.25 + 0.2 * len(listed) if one_row else 0)
    photograph = figure.add_subplot(grid[0, 0])
    show(photograph, image, f"pixel x = {pixel[0]}, y = {pixel[1]}", pixel)
    for rank, (index, _) in enumerate(listed, 1):
        if level[index]:  # single positions are too small for a number
            outline(photograph, box[index], str(rank))
    _list(figure.add_subplot(grid[1, 0]), [text for _, text in listed])
    low, high = float(weight.min()), float(weight.max())
    panels = []
    for number, n in enumerate(present):
        chosen = level == n
        row, column = divmod(number, columns - 1)
        axes = figure.add_subplot(grid[row, 1 + column])
        values = painted(image, box[chosen], shares(weight[chosen], low, high))
        share = f"{100 * weight[chosen].sum():.1f} % of the attention"
        show(axes, image, f"all positions: {share}" if n == 0 else f"{n} × {n} cells: {share}", pixel, values)
        if n:
            for cell in box[chosen]:
                outline(axes, cell)
        panels.append(axes)
    bar(figure, panels, 100 * low, 100 * high, f"weight of a region in %\n(evenly spread: {100 / len(weight):.2g} %)")
    return figure


def local_picture(
    image: np.ndarray,
    pixel: Pixel,
    weights: ArrayLike,
    boxes: ArrayLike,
    inside: ArrayLike,
    title: str = "Local affinity",
) -> Figure:
    """The weights [k, k] that `pixel` gives to its neighbours: where they lie, from near, and as a table of percentages.

    boxes: [k, k, 4] left, top, right, bottom in pixels. inside: [k, k] bool, false for neighbours outside the feature
    map, which are hatched in the table.
    """
    from matplotlib.patches import Rectangle

    weight, box, within = np.asarray(weights, np.float64), np.asarray(boxes, np.float64), np.asarray(inside, bool)
    figure, grid = new_figure(image, 3, 1, title)
    low, high = float(weight.min()), float(weight.max())
    whole, near, table = (figure.add_subplot(grid[0, column]) for column in range(3))
    left, top, right, bottom = frame = _surroundings(image, box[within])
    show(whole, image, f"pixel x = {pixel[0]}, y = {pixel[1]}", pixel)
    outline(whole, np.array(frame), "near")
    close, corner = image[top:bottom, left:right], np.array([left, top, left, top])
    values = painted(close, box[within] - corner, shares(weight[within], low, high))
    show(near, close, "its neighbours from near", (pixel[0] - left, pixel[1] - top), values)
    for cell in box[within] - corner:
        outline(near, cell)
    table.imshow(shades(shares(weight, low, high)))
    bare(table, "weights in %, as they lie")
    for (row, column), value in np.ndenumerate(weight):
        ink = "white" if shares(value, low, high) > 0.45 else "black"
        size = max(5, 11 - len(weight) // 3)
        table.text(column, row, f"{100 * value:.1f}", ha="center", va="center", color=ink, fontsize=size)
        if not within[row, column]:
            style: dict[str, Any] = {"fill": False, "hatch": "///", "edgecolor": "grey", "linewidth": 0}
            table.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **style))
    if not within.all():
        table.set_xlabel("hatched: outside the feature map")
    bar(figure, [near, table], 100 * low, 100 * high, f"weight in % (evenly spread: {100 / weight.size:.2g} %)")
    return figure


def masks_picture(image: np.ndarray, masks: Mapping[str, ArrayLike], title: str, label: str = "mean of M") -> Figure:
    """One map [h, w] over the whole image for each name, on one scale from the lowest to the highest value of all."""
    maps = {name: np.asarray(values, np.float64) for name, values in masks.items()}
    low, high = min(m.min() for m in maps.values()), max(m.max() for m in maps.values())
    figure, grid = new_figure(image, 1 + len(maps), 1, title)
    show(figure.add_subplot(grid[0, 0]), image, "image")
    panels = []
    for column, (name, values) in enumerate(maps.items(), 1):
        axes = figure.add_subplot(grid[0, column])
        axes.imshow(shades(shares(values, low, high)), extent=extent(image), interpolation="nearest")
        bare(axes, f"{name}\n{values.min():.3f} to {values.max():.3f}")
        panels.append(axes)
    bar(figure, panels, low, high, label)
    return figure


def _surroundings(image: np.ndarray, boxes: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the part of the image that holds the boxes and a margin."""
    margin = 0.1 * float(np.ptp(boxes, axis=0).max()) + 4
    left, top = (max(0, math.floor(side - margin)) for side in boxes[:, :2].min(0))
    right, bottom = (math.ceil(side + margin) for side in boxes[:, 2:].max(0))
    return left, top, min(right, image.shape[1]), min(bottom, image.shape[0])


def _list(axes: Axes, lines: Sequence[str]) -> None:
    """The largest weights in words."""
    axes.axis("off")
    text = "\n".join(f"{rank}  {line}" for rank, line in enumerate(lines, 1))
    axes.text(0, 1, text, ha="left", va="top", fontsize=9, linespacing=1.6, transform=axes.transAxes)
