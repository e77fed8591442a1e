"""What a label is: the index that is ignored, colours, and the colours of classes that have none of their own."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

IGNORE = 255
"""The class index of pixels that take no part, in every label, loss, score and picture."""

Colour = tuple[int, int, int]
Palette = Sequence[Sequence[int]]
"""One RGB colour (0 to 255) for each class."""


def default_colour(index: int) -> Colour:
    """A colour for class `index`, well apart from its neighbours': hues by the golden ratio."""
    red, green, blue = colorsys.hsv_to_rgb(
        index * 0.618034 % 1, (0.85, 0.5, 0.7)[index % 3], (0.9, 0.95, 0.6)[index % 3]
    )
    return round(255 * red), round(255 * green), round(255 * blue)


def default_palette(count: int) -> tuple[Colour, ...]:
    """`default_colour` of the first `count` classes."""
    return tuple(default_colour(index) for index in range(count))


def check_same_classes(found: Sequence[str], expected: Sequence[str], data: str) -> None:
    """ValueError where a model of the classes `found` cannot have been trained for those of `data`, `expected`."""
    if len(found) != len(expected):
        raise ValueError(
            f"the model predicts {len(found)} classes and {data} has {len(expected)}: use a model that was trained for it"
        )
    if set(found) == set(expected) and tuple(found) != tuple(expected):
        raise ValueError(f"the model has the classes of {data} in another order: bring them into one order")
