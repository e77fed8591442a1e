"""Tables of pictures of one photograph: predictions of several models, and their errors, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from nonlocalseg.drawing.colours import RIGHT, UNSCORED, WRONG, error_map, overlay
from nonlocalseg.drawing.pictures import marked, montage, with_legend
from nonlocalseg.labels import IGNORE, Palette


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


def _present(masks: Iterable[ArrayLike]) -> list[int]:
    found = set().union(*(np.unique(np.asarray(mask)).tolist() for mask in masks))
    return sorted(found - {IGNORE})
