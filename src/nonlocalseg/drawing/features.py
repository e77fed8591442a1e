"""The figure of a backbone's features as colours, a row for each model (ANN, supplement Fig. 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from nonlocalseg.drawing._panels import bare, columns_for, extent, new_figure, places, rows_for, show
from nonlocalseg.drawing.colours import from_lab

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def features_picture(
    image: np.ndarray,
    features: Mapping[str, Mapping[str, ArrayLike]],
    shares: Mapping[str, Mapping[str, Sequence[float]]],
    title: str,
    note: str = "",
) -> Figure:
    """Three components [3, h, w] in [0, 1] of every model's stages: the stages of one model in rows, or a column for
    each of several models and a row for each stage.

    Component 1 is lightness, 2 runs from blue to yellow, 3 from green to red (CIELAB), so that grey shows the first,
    and every eye the first two. shares: the components' shares of the variance. note: what the components are.
    """
    stages, several = list(next(iter(features.values()))), len(features) > 1
    columns = len(features) if several else columns_for(image)
    rows = 1 + len(stages) if several else rows_for(1 + len(stages), columns)
    figure, grid = new_figure(image, columns, [*[None] * rows, 0.9], title)
    show(figure.add_subplot(grid[0, 0]), image, "image")
    for column, (name, maps) in enumerate(features.items()):
        spots = [(1 + row, column) for row in range(len(stages))] if several else places(1 + len(stages), columns)[1:]
        for stage, spot in zip(stages, spots, strict=True):
            axes = figure.add_subplot(grid[spot])
            axes.imshow(component_colours(maps[stage]), extent=extent(image), interpolation="nearest")
            high, wide = np.shape(maps[stage])[1:]
            told = ", ".join(f"{100 * share:.0f}" for share in shares[name][stage])
            words = [*([name] if several else []), f"{stage}, {wide} × {high}", f"{told} % of the variance"]
            bare(axes, "\n".join(words), size=10 if columns < 3 else 8)
    _explain_colours(figure.add_subplot(grid[rows, :]), note)
    return figure


def component_colours(components: ArrayLike) -> np.ndarray:
    """[3, h, w] in [0, 1] -> sRGB 0-1 [h, w, 3]: lightness, blue to yellow, green to red."""
    one, two, three = np.clip(np.asarray(components, np.float64), 0, 1)
    return from_lab(np.stack([15 + 78 * one, 70 * (three - 0.5), 90 * (two - 0.5)], -1))


def _explain_colours(axes: Axes, note: str) -> None:
    """Three ramps that say what each component's colours are, and the note below."""
    ramp = np.linspace(0, 1, 64)
    strips = np.full((3, 3, 64), 0.5)
    strips[0, 0], strips[1, 1], strips[2, 2] = ramp, ramp, ramp
    names = ("component 1: lightness", "component 2: blue to yellow", "component 3: green to red")
    for place, strip in enumerate(strips):
        inset = axes.inset_axes((0.04 + place / 3, 0.62, 0.25, 0.34))
        inset.imshow(component_colours(strip[:, None]), aspect="auto")
        bare(inset, "")
        inset.set_xlabel(names[place], fontsize=9)
    axes.text(0.5, 0.12, note, ha="center", va="top", fontsize=9, wrap=True, transform=axes.transAxes)
    axes.axis("off")
