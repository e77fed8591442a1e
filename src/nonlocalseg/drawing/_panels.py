"""What the figures of explanations share: panels of one photograph, values in shades over it, outlines, the bar."""

from __future__ import annotations

from collections.abc import Sequence
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
PANEL_SIDE = 640  # pixels of the longer side of a photograph inside a figure
PANEL_INCHES = 3.4


def new_figure(image: np.ndarray, columns: int, rows: int, title: str, foot: float = 0.0) -> tuple[Figure, GridSpec]:
    """A figure with a grid for pictures of the image's shape, and a low last row of `foot` inches where asked for."""
    from matplotlib.figure import Figure

    high, wide = image.shape[:2]
    scale = PANEL_INCHES / max(high, wide)
    width, height = max(2.2, wide * scale), max(1.8, high * scale)
    size = (columns * (width + 0.3) + 1.0, rows * (height + 0.45) + 0.7 + foot)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, fontsize=13)
    heights = [height] * rows + ([foot] if foot else [])
    return figure, figure.add_gridspec(len(heights), columns, height_ratios=heights)


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
    """Values in [0, 1] painted into their boxes, NaN elsewhere, at the size of `small`; later boxes cover earlier ones."""
    high, wide = small(image).shape[:2]
    canvas = np.full((high, wide), np.nan)
    scale = np.array([wide / image.shape[1], high / image.shape[0]] * 2)
    edges = np.clip(np.round(boxes * scale), 0, [wide, high, wide, high]).astype(int)
    for (left, top, right, bottom), value in zip(edges, values, strict=True):
        canvas[top : max(bottom, top + 1), left : max(right, left + 1)] = value
    return canvas


def show(
    axes: Axes, image: np.ndarray, title: str, pixel: Pixel | None = None, values: np.ndarray | None = None
) -> None:
    """The photograph, or `values` over a pale grey one, with a cross at the pixel."""
    picture = small(image)
    if values is not None:
        grey = picture @ np.array([0.299, 0.587, 0.114])
        low, high = np.quantile(grey, (0.02, 0.98))
        pale = (0.84 + 0.16 * np.clip((grey - low) / max(high - low, 1e-6), 0, 1))[..., None]
        picture = np.where(np.isnan(values)[..., None], pale, shades(np.nan_to_num(values)) * pale)
    axes.imshow(picture, extent=extent(image))
    if pixel is not None:
        place = pixel[0] + 0.5, pixel[1] + 0.5
        axes.plot(*place, "+", color="black", markersize=13, markeredgewidth=4.5)
        axes.plot(*place, "+", color="white", markersize=11, markeredgewidth=1.8)
    bare(axes, title)


def bare(axes: Axes, title: str) -> None:
    """Axes with a title and without ticks."""
    axes.set_title(title, fontsize=10)
    axes.set_xticks([])
    axes.set_yticks([])


def outline(axes: Axes, box: np.ndarray, label: str = "") -> None:
    """A thin frame around a box [4], or a striking one with a label."""
    from matplotlib.patches import Rectangle

    left, top, right, bottom = box
    if label:
        for colour, width in (("black", 3.0), (tuple(c / 255 for c in WHITE), 1.2)):
            axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, lw=width))
        frame: dict[str, Any] = {"facecolor": "white", "edgecolor": "black", "pad": 1.5, "linewidth": 0.8}
        axes.text(left, top, label, ha="left", va="top", fontsize=9, fontweight="bold", bbox=frame)
    else:
        axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor="0.25", lw=0.6))


def bar(figure: Figure, axes: Sequence[Axes], low: float, high: float, label: str) -> None:
    """The bar that says which number each shade stands for."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    mapping = ScalarMappable(Normalize(low, high), ListedColormap(shades(np.linspace(0, 1, 256))))
    figure.colorbar(mapping, ax=list(axes), fraction=0.05, pad=0.02).set_label(label)
