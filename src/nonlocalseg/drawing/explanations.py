"""Pictures of what a model attends to, of its masks and features, and of several models side by side.

Weights are shown by `shades`, one hue that darkens evenly, multiplied with a pale grey copy of the photograph; every
such picture has a bar with the numbers. The figures they follow: ANN Fig. 5 and supplement Fig. 2, GALD Fig. 7-11.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from nonlocalseg.drawing.palettes import (
    IGNORE,
    RIGHT,
    UNSCORED,
    WHITE,
    WRONG,
    Palette,
    error_map,
    from_lab,
    overlay,
    shades,
)
from nonlocalseg.drawing.pictures import marked, montage, with_legend

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Pixel = tuple[int, int]  # x, y
PANEL_SIDE = 640  # pixels of the longer side of a photograph inside a figure
PANEL_INCHES = 3.4


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
    figure, grid = _figure(image, columns, 1 if one_row else 2, title, 0.25 + 0.2 * len(listed) if one_row else 0)
    photograph = figure.add_subplot(grid[0, 0])
    _show(photograph, image, f"pixel x = {pixel[0]}, y = {pixel[1]}", pixel)
    for rank, (index, _) in enumerate(listed, 1):
        if level[index]:  # single positions are too small for a number
            _outline(photograph, box[index], str(rank))
    _list(figure.add_subplot(grid[1, 0]), [text for _, text in listed])
    low, high = float(weight.min()), float(weight.max())
    panels = []
    for number, n in enumerate(present):
        chosen = level == n
        row, column = divmod(number, columns - 1)
        axes = figure.add_subplot(grid[row, 1 + column])
        values = _painted(image, box[chosen], _shares(weight[chosen], low, high))
        share = f"{100 * weight[chosen].sum():.1f} % of the attention"
        _show(axes, image, f"all positions: {share}" if n == 0 else f"{n} × {n} cells: {share}", pixel, values)
        if n:
            for cell in box[chosen]:
                _outline(axes, cell)
        panels.append(axes)
    _bar(figure, panels, 100 * low, 100 * high, f"weight of a region in %\n(evenly spread: {100 / len(weight):.2g} %)")
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
    figure, grid = _figure(image, 3, 1, title)
    low, high = float(weight.min()), float(weight.max())
    whole, near, table = (figure.add_subplot(grid[0, column]) for column in range(3))
    left, top, right, bottom = frame = _surroundings(image, box[within])
    _show(whole, image, f"pixel x = {pixel[0]}, y = {pixel[1]}", pixel)
    _outline(whole, np.array(frame), "near")
    close, corner = image[top:bottom, left:right], np.array([left, top, left, top])
    values = _painted(close, box[within] - corner, _shares(weight[within], low, high))
    _show(near, close, "its neighbours from near", (pixel[0] - left, pixel[1] - top), values)
    for cell in box[within] - corner:
        _outline(near, cell)
    table.imshow(shades(_shares(weight, low, high)))
    _bare(table, "weights in %, as they lie")
    for (row, column), value in np.ndenumerate(weight):
        ink = "white" if _shares(value, low, high) > 0.45 else "black"
        size = max(5, 11 - len(weight) // 3)
        table.text(column, row, f"{100 * value:.1f}", ha="center", va="center", color=ink, fontsize=size)
        if not within[row, column]:
            style: dict[str, Any] = {"fill": False, "hatch": "///", "edgecolor": "grey", "linewidth": 0}
            table.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **style))
    if not within.all():
        table.set_xlabel("hatched: outside the feature map")
    _bar(figure, [near, table], 100 * low, 100 * high, f"weight in % (evenly spread: {100 / weight.size:.2g} %)")
    return figure


def masks_picture(image: np.ndarray, masks: Mapping[str, ArrayLike], title: str, label: str = "mean of M") -> Figure:
    """One map [h, w] over the whole image for each name, on one scale from the lowest to the highest value of all."""
    maps = {name: np.asarray(values, np.float64) for name, values in masks.items()}
    low, high = min(m.min() for m in maps.values()), max(m.max() for m in maps.values())
    figure, grid = _figure(image, 1 + len(maps), 1, title)
    _show(figure.add_subplot(grid[0, 0]), image, "image")
    panels = []
    for column, (name, values) in enumerate(maps.items(), 1):
        axes = figure.add_subplot(grid[0, column])
        axes.imshow(shades(_shares(values, low, high)), extent=_extent(image), interpolation="nearest")
        _bare(axes, f"{name}\n{values.min():.3f} to {values.max():.3f}")
        panels.append(axes)
    _bar(figure, panels, low, high, label)
    return figure


def features_picture(
    image: np.ndarray,
    features: Mapping[str, Mapping[str, ArrayLike]],
    shares: Mapping[str, Mapping[str, Sequence[float]]],
    title: str,
    note: str = "",
) -> Figure:
    """Three components [3, h, w] in [0, 1] of every model's stages, a row for each model and a column for each stage.

    Component 1 is lightness, 2 runs from blue to yellow, 3 from green to red (CIELAB), so that grey shows the first,
    and every eye the first two. shares: the components' shares of the variance. note: what the components are.
    """
    stages = list(next(iter(features.values())))
    figure, grid = _figure(image, 1 + len(stages), len(features), title, foot=0.8)
    for row, (name, maps) in enumerate(features.items()):
        axes = figure.add_subplot(grid[row, 0])
        _show(axes, image, "")
        axes.set_ylabel(name, fontsize=11)
        for column, stage in enumerate(stages, 1):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(component_colours(maps[stage]), extent=_extent(image), interpolation="nearest")
            high, wide = np.shape(maps[stage])[1:]
            told = ", ".join(f"{100 * share:.0f}" for share in shares[name][stage])
            _bare(axes, f"{stage}, {wide} × {high}\n{told} % of the variance")
    key = figure.add_subplot(grid[len(features), :])
    ramp = np.linspace(0, 1, 64)
    strips = np.full((3, 3, 64), 0.5)
    strips[0, 0], strips[1, 1], strips[2, 2] = ramp, ramp, ramp
    names = ("component 1: lightness", "component 2: blue to yellow", "component 3: green to red")
    for place, strip in enumerate(strips):
        inset = key.inset_axes((0.04 + place / 3, 0.62, 0.25, 0.34))
        inset.imshow(component_colours(strip[:, None]), aspect="auto")
        _bare(inset, "")
        inset.set_xlabel(names[place], fontsize=9)
    key.text(0.5, 0.12, note, ha="center", va="top", fontsize=9, transform=key.transAxes)
    key.axis("off")
    return figure


def component_colours(components: ArrayLike) -> np.ndarray:
    """[3, h, w] in [0, 1] -> sRGB 0-1 [h, w, 3]: lightness, blue to yellow, green to red."""
    one, two, three = np.clip(np.asarray(components, np.float64), 0, 1)
    return from_lab(np.stack([15 + 78 * one, 70 * (three - 0.5), 90 * (two - 0.5)], -1))


def comparison(
    image: np.ndarray,
    predictions: Mapping[str, ArrayLike],
    classes: Sequence[str],
    palette: Palette,
    truth: ArrayLike | None = None,
    title: str = "",
) -> np.ndarray:
    """The image, every prediction [H, W] and the truth in one row, outlined and numbered, with the classes present."""
    named = {**predictions, **({} if truth is None else {"ground truth": truth})}
    row = [image, *(_labelled(image, mask, palette) for mask in named.values())]
    return montage([row], ["image", *named], [""], classes, palette, title, _present(named.values()))


def error_comparison(
    image: np.ndarray,
    predictions: Mapping[str, ArrayLike],
    truth: ArrayLike,
    classes: Sequence[str],
    palette: Palette,
    title: str = "",
) -> np.ndarray:
    """A row for each model: image, truth, prediction and `error_map`; the share of wrong pixels is in the row's name."""
    target = np.asarray(truth)
    scored = max(1, int((target != IGNORE).sum()))
    rows, names = [], []
    for name, mask in predictions.items():
        wrong = int(((np.asarray(mask) != target) & (target != IGNORE)).sum())
        names.append(f"{name}: {100 * wrong / scored:.1f} % wrong")
        rows.append([image, *(_labelled(image, m, palette) for m in (target, mask)), error_map(mask, target)])
    titles = ("image", "ground truth", "prediction", "errors")
    picture = montage(rows, titles, names, classes, palette, title, _present([target, *predictions.values()]))
    words = ("right", "wrong", "not scored (striped)")
    return with_legend(picture, words, (RIGHT, WRONG, UNSCORED[0]), text=16, numbered=False)


def _labelled(image: np.ndarray, mask: ArrayLike, palette: Palette) -> np.ndarray:
    return marked(overlay(image, mask, palette, 0.7), mask)


def _present(masks: Any) -> list[int]:
    found = set().union(*(np.unique(np.asarray(mask)).tolist() for mask in masks))
    return sorted(found - {IGNORE})


def _figure(image: np.ndarray, columns: int, rows: int, title: str, foot: float = 0.0) -> tuple[Figure, Any]:
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


def _shares(values: ArrayLike, low: float, high: float) -> np.ndarray:
    """0 at `low`, 1 at `high`."""
    return (np.asarray(values) - low) / max(high - low, 1e-12)


def _surroundings(image: np.ndarray, boxes: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the part of the image that holds the boxes and a margin."""
    margin = 0.1 * float(np.ptp(boxes, axis=0).max()) + 4
    left, top = (max(0, math.floor(side - margin)) for side in boxes[:, :2].min(0))
    right, bottom = (math.ceil(side + margin) for side in boxes[:, 2:].max(0))
    return left, top, min(right, image.shape[1]), min(bottom, image.shape[0])


def _extent(image: np.ndarray) -> tuple[float, float, float, float]:
    return 0, image.shape[1], image.shape[0], 0


def _small(image: np.ndarray) -> np.ndarray:
    """The photograph at most `PANEL_SIDE` pixels long, as numbers 0-1."""
    share = min(1, PANEL_SIDE / max(image.shape[:2]))
    size = max(1, round(image.shape[1] * share)), max(1, round(image.shape[0] * share))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX), np.float64) / 255


def _painted(image: np.ndarray, boxes: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values in [0, 1] painted into their boxes, NaN elsewhere, at the size of `_small`; later boxes cover earlier ones."""
    high, wide = _small(image).shape[:2]
    painted = np.full((high, wide), np.nan)
    scale = np.array([wide / image.shape[1], high / image.shape[0]] * 2)
    edges = np.clip(np.round(boxes * scale), 0, [wide, high, wide, high]).astype(int)
    for (left, top, right, bottom), value in zip(edges, values, strict=True):
        painted[top : max(bottom, top + 1), left : max(right, left + 1)] = value
    return painted


def _show(
    axes: Any, image: np.ndarray, title: str, pixel: Pixel | None = None, values: np.ndarray | None = None
) -> None:
    """The photograph, or `values` over a pale grey one, with a cross at the pixel."""
    picture = _small(image)
    if values is not None:
        grey = picture @ np.array([0.299, 0.587, 0.114])
        low, high = np.quantile(grey, (0.02, 0.98))
        pale = (0.84 + 0.16 * np.clip((grey - low) / max(high - low, 1e-6), 0, 1))[..., None]
        picture = np.where(np.isnan(values)[..., None], pale, shades(np.nan_to_num(values)) * pale)
    axes.imshow(picture, extent=_extent(image))
    if pixel is not None:
        place = pixel[0] + 0.5, pixel[1] + 0.5
        axes.plot(*place, "+", color="black", markersize=13, markeredgewidth=4.5)
        axes.plot(*place, "+", color="white", markersize=11, markeredgewidth=1.8)
    _bare(axes, title)


def _bare(axes: Any, title: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xticks([])
    axes.set_yticks([])


def _outline(axes: Any, box: np.ndarray, label: str = "") -> None:
    from matplotlib.patches import Rectangle

    left, top, right, bottom = box
    if label:
        for colour, width in (("black", 3.0), (tuple(c / 255 for c in WHITE), 1.2)):
            axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, lw=width))
        frame: dict[str, Any] = {"facecolor": "white", "edgecolor": "black", "pad": 1.5, "linewidth": 0.8}
        axes.text(left, top, label, ha="left", va="top", fontsize=9, fontweight="bold", bbox=frame)
    else:
        axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor="0.25", lw=0.6))


def _list(axes: Any, lines: Sequence[str]) -> None:
    """The largest weights in words."""
    axes.axis("off")
    text = "\n".join(f"{rank}  {line}" for rank, line in enumerate(lines, 1))
    axes.text(0, 1, text, ha="left", va="top", fontsize=9, linespacing=1.6, transform=axes.transAxes)


def _bar(figure: Figure, axes: Sequence[Any], low: float, high: float, label: str) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    mapping = ScalarMappable(Normalize(low, high), ListedColormap(shades(np.linspace(0, 1, 256))))
    figure.colorbar(mapping, ax=list(axes), fraction=0.05, pad=0.02).set_label(label)
