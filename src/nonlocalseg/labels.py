"""What a label is: what stored values and colours mean, the index that is ignored, colours of classes."""

from __future__ import annotations

import colorsys
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from functools import cached_property
from typing import Annotated

import numpy as np
from pydantic import BeforeValidator, PlainSerializer

from nonlocalseg.values import value

IGNORE = 255
"""The class index of pixels that take no part, in every label, loss, score and picture."""

Colour = tuple[int, int, int]
Palette = Sequence[Sequence[int]]
"""One RGB colour (0 to 255) for each class."""


RawValue = int | Colour
"""What a label image holds in a pixel."""
_UNKNOWN = 254
# Found by annealing (the first 20, the most distant of them first) and one by one (the others), so that the smallest
# CIEDE2000 distance is large for every eye: 22.7, and 11.3 in the dichromats' vision as Machado et al. (2009) simulate it.
_DISTINCT = bytes.fromhex("""
    0a71fb c4ff14 b7752a eebdbc 8b1434 aaf6f6 003507 ffecbf f93b80 2b9995 03575b 616000 4f085a fb81ff a6b1c6 945ba3
    bcaa00 1ed57a 0600ff 787671 554488 cc2244 8888bb 220099 551133 557755 ccccff 779988 994477 ddee88 554400 88bb99
    dd00dd ee7755 00eecc cc88aa 88dd44 8833bb 223322 227733
""")


class LabelError(ValueError):
    """A label image that the label map does not fit; `counts` holds the pixels of each unknown value or colour."""

    def __init__(self, message: str, counts: Mapping[RawValue, int] | None = None) -> None:
        super().__init__(message)
        self.counts = dict(counts or {})


def _as_tuples(given: object) -> object:
    """ "#rrggbb", as JSON holds a colour, as (r, g, b)."""
    return {_colour(key): index for key, index in given.items()} if isinstance(given, Mapping) else given


def _colour(key: object) -> object:
    if not isinstance(key, str):
        return key
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", key):
        raise ValueError(f"{key!r} is no colour; write it as #rrggbb")
    return tuple(bytes.fromhex(key[1:]))


def _as_texts(colours: Mapping[Colour, int]) -> dict[str, int]:
    return {_spell(colour): index for colour, index in colours.items()}


@value
class LabelMap:
    """What the values and the RGB colours of label images mean: the index of a class, or 255 for ignore."""

    values: dict[int, int] = field(default_factory=dict)
    "Stored value, 0 to 65535, -> class index, 0 to 253, or 255."
    colours: Annotated[dict[Colour, int], BeforeValidator(_as_tuples), PlainSerializer(_as_texts, when_used="json")] = (
        field(default_factory=dict)
    )
    "The same for label images in colours."

    def __post_init__(self) -> None:
        if not self.values and not self.colours:
            raise ValueError("a label map says what at least one value or colour means")
        if not all(0 <= key <= 65535 for key in self.values):
            raise ValueError("mask values go from 0 to 65535")
        if not all(0 <= part <= 255 for key in self.colours for part in key):
            raise ValueError("a colour is three numbers from 0 to 255")
        if not all(
            0 <= index < _UNKNOWN or index == IGNORE for index in (*self.values.values(), *self.colours.values())
        ):
            raise ValueError(f"class indices go from 0 to {_UNKNOWN - 1}, and {IGNORE} for ignore")

    @cached_property
    def _of_values(self) -> np.ndarray:
        return _table(self.values, max(self.values) + 1)

    @cached_property
    def _of_colours(self) -> np.ndarray:
        """Takes 16 MB, so it is made when a label is read."""
        return _table(
            {red << 16 | green << 8 | blue: self.colours[red, green, blue] for red, green, blue in self.colours},
            1 << 24,
        )

    def __call__(self, raw: np.ndarray) -> np.ndarray:
        """Values [H, W] or colours [H, W, 3] -> uint8 [H, W], 255 for ignore.

        Raises `LabelError` for values or colours that the map does not know, and for colours where it knows values
        alone or the reverse.
        """
        coloured = raw.ndim == 3
        if not (self.colours if coloured else self.values):
            expected, found = ("single values", "RGB colours") if coloured else ("RGB colours", "single values")
            raise LabelError(f"label holds {found} where the class map expects {expected}")
        packed, table = raw, self._of_colours if coloured else self._of_values
        if coloured:
            wide = raw.astype(np.int32)
            packed = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
        if packed.size and (packed.min() < 0 or packed.max() >= len(table)):
            inside = (packed >= 0) & (packed < len(table))
            label = np.where(inside, table[np.where(inside, packed, 0)], np.uint8(_UNKNOWN))
        else:
            label = table[packed]
        lost = packed[label == _UNKNOWN]
        if lost.size:
            found, counts = np.unique(lost, return_counts=True)
            order = np.argsort(-counts, kind="stable")
            unknown = {_unpack(int(found[i]), coloured): int(counts[i]) for i in order}
            raise LabelError(f"label has {spell_counts(unknown)}, which the class map does not know", unknown)
        return label


def same(count: int) -> LabelMap:
    """The map of labels that are stored as the indices of `count` classes, and 255."""
    return LabelMap(values={**{index: index for index in range(count)}, IGNORE: IGNORE})


def spell_counts(counts: Mapping[RawValue, int]) -> str:
    """ "value 7 in 120 pixels, value 9 in 4 pixels", or the same with colours; the first five."""
    kind = "colour" if any(isinstance(key, tuple) for key in counts) else "value"
    first = ", ".join(f"{kind} {_spell(key)} in {count} pixels" for key, count in list(counts.items())[:5])
    return first + (f" and {len(counts) - 5} more" if len(counts) > 5 else "")


def _spell(key: RawValue) -> str:
    return str(key) if isinstance(key, int) else "#{:02x}{:02x}{:02x}".format(*key)


def _table(meaning: Mapping[int, int], size: int) -> np.ndarray:
    """Stored value -> class."""
    table = np.full(size, _UNKNOWN, np.uint8)
    table[list(meaning)] = list(meaning.values())
    return table


def _unpack(key: int, coloured: bool) -> RawValue:
    return (key >> 16, key >> 8 & 255, key & 255) if coloured else key


def default_colour(index: int) -> Colour:
    """A colour for class `index`, as far from the others' and from black as 20, or 40, colours can be; then hues by
    the golden ratio."""
    if 3 * index < len(_DISTINCT):
        red, green, blue = _DISTINCT[3 * index : 3 * index + 3]
        return red, green, blue
    red, green, blue = colorsys.hsv_to_rgb(
        index * 0.618034 % 1, (0.85, 0.5, 0.7)[index % 3], (0.9, 0.95, 0.6)[index % 3]
    )
    return round(255 * red), round(255 * green), round(255 * blue)


def default_palette(count: int) -> tuple[Colour, ...]:
    """`default_colour` of the first `count` classes."""
    return tuple(default_colour(index) for index in range(count))


def check_class_names(names: Iterable[str]) -> None:
    """ValueError for the name of a class that cannot be printed: names come from files, and go to the terminal."""
    for name in names:
        if not name.strip() or not name.isprintable():
            raise ValueError(f"{name!r} cannot be the name of a class: give it a name of printable characters")


def check_same_classes(found: Sequence[str], expected: Sequence[str], data: str) -> None:
    """ValueError where a model of the classes `found` cannot have been trained for those of `data`, `expected`."""
    if len(found) != len(expected):
        raise ValueError(
            f"the model predicts {len(found)} classes and {data} has {len(expected)}: use a model that was trained for it"
        )
    if set(found) == set(expected) and tuple(found) != tuple(expected):
        raise ValueError(f"the model has the classes of {data} in another order: bring them into one order")
