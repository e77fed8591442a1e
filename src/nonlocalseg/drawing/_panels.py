"""What the figures of explanations share: panels of one photograph, values in shades over it, outlines, the bar."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from nonlocalseg.drawing.colours import WHITE, shades

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import GridSpec

Pixel = tuple[int, int]  # x, y
Colouring = Callable[[ArrayLike], np.ndarray]
PANEL_SIDE = 640  # pixels of the longer side of a photograph inside a figure
FIGURE_INCHES = 8.0  # of every figure's width: it fits a page, and a telephone shows half of it at full size
WIDE = 2.2  # width / height from which a photograph takes the whole width


def columns_for(image: np.ndarray) -> int:
    """How many panels stand side by side: one wide one, three upright ones, otherwise two."""
    share = image.shape[1] / image.shape[0]
    return 1 if share >= WIDE else 3 if share < 0.7 else 2


def new_figure(image: np.ndarray, columns: int, rows: Sequence[float | None], title: str) -> tuple[Figure, GridSpec]:
    """A figure with a grid for pictures of the image's shape. rows: heights in inches, None where a picture stands."""
    from matplotlib.figure import Figure

    high, wide = image.shape[:2]
    width = (FIGURE_INCHES - 0.3) / columns - 0.2
    height = min(max(0.5, width * high / wide), 2 * FIGURE_INCHES)
    heights = [height if row is None else row for row in rows]
    titles = 0.45 * sum(row is None for row in rows)
    figure = Figure(figsize=(FIGURE_INCHES, sum(heights) + titles + 1.5), layout="constrained")
    figure.suptitle(title, fontsize=13, wrap=True)
    return figure, figure.add_gridspec(len(heights), columns, height_ratios=heights)


def places(panels: int, columns: int) -> list[tuple[int, int]]:
    """Row and column of each panel, in reading order."""
    return [divmod(number, columns) for number in range(panels)]


def rows_for(panels: int, columns: int) -> int:
    return math.ceil(panels / columns)


def shares(values: ArrayLike, low: float, high: float) -> np.ndarray:
    """0 at `low`, 1 at `high`."""
    return (np.asarray(values) - low) / max(high - low, 1e-12)


def extent(image: np.ndarray) -> tuple[float, float, float, float]:
    """Where matplotlib puts a picture of the image, so that axes count its pixels."""
    return 0, image.shape[1], image.shape[0], 0


def small(image: np.ndarray) -> np.ndarray:
    """The photograph at most `PANEL_SIDE` pixels long, as numbers 0-1."""
    share = min(1, PANEL_SIDE / max(image.shape[:2]))
    size = max(1, round(image.shape[1] * share)), max(1, round(image.shape[0] * share))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX), np.float64) / 255


def painted(image: np.ndarray, boxes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values painted into their boxes, NaN elsewhere, at the size of `small`; where boxes overlap, the larger value."""
    high, wide = small(image).shape[:2]
    canvas = np.full((high, wide), np.nan)
    scale = np.array([wide / image.shape[1], high / image.shape[0]] * 2)
    edges = np.clip(np.round(boxes * scale), 0, [wide, high, wide, high]).astype(int)
    order = np.argsort(values, kind="stable")
    for (left, top, right, bottom), value in zip(edges[order], values[order], strict=True):
        canvas[top : max(bottom, top + 1), left : max(right, left + 1)] = value
    return canvas


def overlapping(boxes: np.ndarray) -> bool:
    """Whether boxes [S, 4] share more than an edge: in sum they are larger than what they cover."""
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).sum()
    return bool(area > 1.001 * np.prod(boxes[:, 2:].max(0) - boxes[:, :2].min(0)))


def show(
    axes: Axes,
    image: np.ndarray,
    title: str,
    pixel: Pixel | None = None,
    values: np.ndarray | None = None,
    colours: Colouring = shades,
) -> None:
    """The photograph, or `values` in `colours` over a pale grey one, with a cross at the pixel."""
    picture = small(image)
    if values is not None:
        grey = picture @ np.array([0.299, 0.587, 0.114])
        low, high = np.quantile(grey, (0.02, 0.98))
        pale = (0.84 + 0.16 * np.clip((grey - low) / max(high - low, 1e-6), 0, 1))[..., None]
        picture = np.where(np.isnan(values)[..., None], pale, colours(np.nan_to_num(values)) * pale)
    axes.imshow(picture, extent=extent(image))
    if pixel is not None:
        place = pixel[0] + 0.5, pixel[1] + 0.5
        axes.plot(*place, "+", color="black", markersize=13, markeredgewidth=4.5)
        axes.plot(*place, "+", color="white", markersize=11, markeredgewidth=1.8)
    bare(axes, title)


def bare(axes: Axes, title: str, size: float = 10) -> None:
    """Axes with a title and without ticks."""
    axes.set_title(title, fontsize=size)
    axes.set_xticks([])
    axes.set_yticks([])


def outline(axes: Axes, box: np.ndarray) -> None:
    """A thin frame around a box [4]."""
    from matplotlib.patches import Rectangle

    left, top, right, bottom = box
    axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor="0.25", lw=0.6))


def label(axes: Axes, image: np.ndarray, boxes: Sequence[np.ndarray], labels: Sequence[str], pixel: Pixel) -> None:
    """Striking frames around boxes [4], each with its label in the corner farthest from the cross and other labels."""
    from matplotlib.patches import Rectangle

    high, wide = image.shape[:2]
    taken = [(pixel[0] / max(high, wide), pixel[1] / max(high, wide))]
    frame: dict[str, Any] = {"facecolor": "white", "edgecolor": "black", "pad": 1.5, "linewidth": 0.8}
    for (left, top, right, bottom), text in zip(boxes, labels, strict=True):
        for colour, width in (("black", 3.0), (tuple(c / 255 for c in WHITE), 1.2)):
            axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, lw=width))
        corners = [(x, y) for y in (top, bottom) for x in (left, right)]
        distances = [
            min(math.hypot(x / max(high, wide) - a, y / max(high, wide) - b) for a, b in taken) for x, y in corners
        ]
        x, y = corners[int(np.argmax(np.round(distances, 6)))]
        taken.append((x / max(high, wide), y / max(high, wide)))
        sides: dict[str, Any] = {"ha": "left" if x == left else "right", "va": "top" if y == top else "bottom"}
        axes.text(x, y, text, fontsize=9, fontweight="bold", bbox=frame, **sides)


def bar(figure: Figure, axes: Sequence[Axes], low: float, high: float, text: str, colours: Colouring = shades) -> Axes:
    """The bar below that says which number each colour stands for; `colours` take 0 at `low` and 1 at `high`."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    mapping = ScalarMappable(Normalize(low, high), ListedColormap(colours(np.linspace(0, 1, 256))))
    bar = figure.colorbar(mapping, ax=list(axes), location="bottom", aspect=45, fraction=0.05, pad=0.02)
    bar.set_label(text, fontsize=10)
    return bar.ax
