"""Figures of what a model attends to and of its masks, as numbers over the photograph (ANN Fig. 5, GALD Fig. 7-11).

Weights of regions are shown by `shades`, one hue that darkens evenly, local ones by `diverging` around the even weight,
masks on their whole range; all multiplied with a pale grey copy of the photograph, above a bar with the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from nonlocalseg.drawing._panels import (
    Pixel,
    bar,
    bare,
    columns_for,
    extent,
    label,
    new_figure,
    outline,
    overlapping,
    painted,
    places,
    rows_for,
    shares,
    show,
)
from nonlocalseg.drawing.colours import diverging, shades

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
    said: str = "",
) -> Figure:
    """The weights [S] that `pixel` gives to regions of the image uint8 [H, W, 3], each drawn where it lies.

    boxes: [S, 4] left, top, right, bottom in pixels. levels: [S] int, n for the cells of an n x n grid, 0 for single
    positions; every level has a panel. listed: index and text of the regions that are outlined and listed, in order.
    said: the class of the pixel.
    """
    weight, box, level = np.asarray(weights, np.float64), np.asarray(boxes, np.float64), np.asarray(levels)
    present = sorted(set(level.tolist()))
    columns = columns_for(image)
    beside = columns > 1  # the list stands beside the photograph, or below it
    room = 0.35 + 0.21 * len(listed)
    rows = rows_for(len(present) + 2, columns) if beside else 1 + len(present)
    heights: list[float | None] = [None] * rows if beside else [None, room, *[None] * len(present)]
    figure, grid = new_figure(image, columns, heights, title)
    photograph = figure.add_subplot(grid[0, 0])
    show(photograph, image, _place(pixel, said), pixel)
    ranked = [(box[index], str(rank)) for rank, (index, _) in enumerate(listed, 1) if level[index]]
    label(
        photograph, image, [one for one, _ in ranked], [text for _, text in ranked], pixel
    )  # single positions are small
    _list(figure.add_subplot(grid[0, 1] if beside else grid[1, 0]), [text for _, text in listed])
    low, high = 0.0, float(weight.max())
    panels, covered = [], False
    for n, (row, column) in zip(present, places(len(present) + 2, columns)[2:], strict=True):
        chosen = level == n
        axes = figure.add_subplot(grid[row, column])
        values = painted(image, box[chosen], shares(weight[chosen], low, high))
        share = f"{100 * weight[chosen].sum():.1f} % of the attention"
        show(axes, image, f"all positions: {share}" if n == 0 else f"{n} × {n} cells: {share}", pixel, values)
        if n:
            covered |= overlapping(box[chosen])
            for cell in box[chosen]:
                outline(axes, cell)
        panels.append(axes)
    text = f"weight of a region in % (evenly spread: {100 / len(weight):.2g} %)"
    overlap = "\nneighbouring cells overlap where the map cannot be divided evenly; the larger weight is on top"
    bar(figure, panels, 100 * low, 100 * high, text + (overlap if covered else ""))
    return figure


def local_picture(
    image: np.ndarray,
    pixel: Pixel,
    weights: ArrayLike,
    boxes: ArrayLike,
    inside: ArrayLike,
    title: str = "Local affinity",
    said: str = "",
) -> Figure:
    """The weights [k, k] that `pixel` gives to its neighbours: where they lie, from near, and as a table of percentages.

    boxes: [k, k, 4] left, top, right, bottom in pixels. inside: [k, k] bool, false for neighbours outside the feature
    map, which are hatched in the table. said: the class of the pixel. Colours diverge around the even weight 1/k² and
    reach their ends at 0 and 2/k², or farther where a weight is larger: weights that hardly differ hardly show.
    """
    from matplotlib.patches import Rectangle

    weight, box, within = np.asarray(weights, np.float64), np.asarray(boxes, np.float64), np.asarray(inside, bool)
    columns = columns_for(image)
    rows = rows_for(3, columns)
    heights: list[float | None] = [None] * rows if columns > 1 else [None, None, 4.0]
    figure, grid = new_figure(image, columns, heights, title)
    even = 1 / weight.size
    reach = max(even, float(weight.max()) - even)  # on both sides
    whole, near, table = (figure.add_subplot(grid[place]) for place in places(3, columns))
    left, top, right, bottom = frame = _surroundings(image, box[within])
    show(whole, image, _place(pixel, said), pixel)
    label(whole, image, [np.array(frame)], ["near"], pixel)
    close, corner = image[top:bottom, left:right], np.array([left, top, left, top])
    values = painted(close, box[within] - corner, (weight[within] - even) / reach)
    show(near, close, "its neighbours from near", (pixel[0] - left, pixel[1] - top), values, diverging)
    for cell in box[within] - corner:
        outline(near, cell)
    table.imshow(diverging((weight - even) / reach))
    bare(table, "weights in %, as they lie")
    for (row, column), value in np.ndenumerate(weight):
        ink = "white" if abs(value - even) / reach > 0.6 else "black"
        size = max(5, 11 - len(weight) // 3)
        table.text(column, row, f"{100 * value:.1f}", ha="center", va="center", color=ink, fontsize=size)
        if not within[row, column]:
            style: dict[str, Any] = {"fill": False, "hatch": "///", "edgecolor": "grey", "linewidth": 0}
            table.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **style))
    if not within.all():
        table.set_xlabel("hatched: outside the feature map")
    text = f"weight in %: white is evenly spread ({100 * even:.2g} %), blue more, brown less"

    def coloured(share: ArrayLike) -> np.ndarray:  # from no weight to the largest
        return diverging((np.asarray(share) * (even + reach) - even) / reach)

    bar(figure, [whole, near, table], 0, 100 * (even + reach), text, coloured)
    return figure


def masks_picture(
    image: np.ndarray, masks: Mapping[str, ArrayLike], title: str, text: str = "mean of the mask"
) -> Figure:
    """Maps [h, w] of shares by name beside the image, on the scale from 0 to 1; their own ranges are in their titles."""
    maps = {name: np.asarray(values, np.float64) for name, values in masks.items()}
    columns = columns_for(image)
    figure, grid = new_figure(image, columns, [None] * rows_for(1 + len(maps), columns), title)
    show(figure.add_subplot(grid[0, 0]), image, "image")
    panels = []
    for (name, values), place in zip(maps.items(), places(1 + len(maps), columns)[1:], strict=True):
        axes = figure.add_subplot(grid[place])
        axes.imshow(shades(values), extent=extent(image), interpolation="nearest")
        bare(axes, f"{name}\n{values.min():.3f} to {values.max():.3f}")
        panels.append(axes)
    bar(figure, panels, 0, 1, text)
    return figure


def _place(pixel: Pixel, said: str) -> str:
    return f"pixel x = {pixel[0]}, y = {pixel[1]}" + (f": {said}" if said else "")


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
