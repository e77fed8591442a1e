"""Tables of pictures of one photograph: predictions of several models, and their errors, with the classes' shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from nonlocalseg.drawing.colours import RIGHT, UNSCORED, WRONG, error_map, overlay
from nonlocalseg.drawing.pictures import (
    TABLE_TEXT,
    class_shares,
    columns_for,
    legend,
    line,
    marked,
    montage,
    percent,
    table_width,
)
from nonlocalseg.labels import IGNORE, Palette


def comparison(
    image: np.ndarray,
    predictions: Mapping[str, ArrayLike],
    classes: Sequence[str],
    palette: Palette,
    truth: ArrayLike | None = None,
    title: str = "",
) -> np.ndarray:
    """The image, every prediction [H, W] and the truth, outlined and numbered, in as many rows as it takes; below them
    the classes present, with their shares of the pixels in each."""
    named = {**predictions, **({} if truth is None else {"ground truth": truth})}
    pictures = [image, *(_labelled(image, mask, palette) for mask in named.values())]
    columns = columns_for(image, len(pictures))
    rows = [pictures[i : i + columns] for i in range(0, len(pictures), columns)]
    names = ["image", *named]
    titles = [names[i : i + columns] for i in range(0, len(pictures), columns)]
    return montage(rows, titles, [_classes(named, classes, palette, table_width(rows))], title)


def error_comparison(
    image: np.ndarray,
    predictions: Mapping[str, ArrayLike],
    truth: ArrayLike,
    classes: Sequence[str],
    palette: Palette,
    title: str = "",
) -> np.ndarray:
    """The image and the truth, and for each model its prediction and `error_map`, with the share of wrong pixels."""
    target = np.asarray(truth)
    scored = max(1, int((target != IGNORE).sum()))
    pictures, names = [image, _labelled(image, target, palette)], ["image", "ground truth"]
    for name, mask in predictions.items():
        wrong = int(((np.asarray(mask) != target) & (target != IGNORE)).sum())
        pictures += [_labelled(image, mask, palette), error_map(mask, target)]
        names += [name, f"{name}: {100 * wrong / scored:.1f} % wrong"]
    columns = min(2, columns_for(image, 2))
    rows = [pictures[i : i + columns] for i in range(0, len(pictures), columns)]
    titles = [names[i : i + columns] for i in range(0, len(pictures), columns)]
    width = table_width(rows)
    words = ("right", "wrong", "not scored (striped)")
    errors = legend(words, (RIGHT, WRONG, UNSCORED[0]), text=TABLE_TEXT, numbered=False, width=width)
    listed = _classes({"ground truth": target, **predictions}, classes, palette, width)
    return montage(rows, titles, [errors, listed], title)


def _labelled(image: np.ndarray, mask: ArrayLike, palette: Palette) -> np.ndarray:
    return marked(overlay(image, mask, palette, 0.7), mask)


def _classes(masks: Mapping[str, ArrayLike], classes: Sequence[str], palette: Palette, width: int) -> np.ndarray:
    """The classes present in any of the masks, with their shares of the pixels of each, in the masks' order."""
    shares = [class_shares(mask, len(classes)) for mask in masks.values()]
    found = sorted({k for share in shares for k in share}, key=lambda k: -max(share.get(k, 0) for share in shares))
    told = {k: " | ".join(percent(share.get(k, 0.0)) for share in shares) for k in found}
    heading = line(f"share of the pixels: {' | '.join(masks)}", width)
    return np.concatenate([heading, legend(classes, palette, told, 0, TABLE_TEXT, True, width)[:, :width]])
