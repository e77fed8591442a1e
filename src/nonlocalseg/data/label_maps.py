"""What the values, or the colours, of a label image mean: tables from what is stored to class indices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from nonlocalseg.labels import IGNORE, Colour

RawValue = int | Colour
"""What a label image holds in a pixel."""
_UNKNOWN = 254


class LabelError(ValueError):
    """A label image that the class map does not fit; `counts` holds the pixels of each unknown value or colour."""

    def __init__(self, message: str, counts: Mapping[RawValue, int] | None = None) -> None:
        super().__init__(message)
        self.counts = dict(counts or {})


class LabelMap:
    """What the values, or the RGB colours, of a label image mean: a class index, or 255 for ignore."""

    def __init__(self, meaning: Mapping[int, int] | Mapping[Colour, int] | Mapping[RawValue, int]) -> None:
        """`meaning`: mask value 0..65535 -> class, or (r, g, b) -> class. Raises `ValueError` for a mixture."""
        kinds = {isinstance(key, tuple) for key in meaning}
        if len(kinds) != 1:
            raise ValueError("a label map holds either mask values or colours, at least one and not both")
        if not all(0 <= index < _UNKNOWN or index == IGNORE for index in meaning.values()):
            raise ValueError(f"class indices go from 0 to {_UNKNOWN - 1}, and {IGNORE} for ignore")
        self.colours = kinds == {True}
        self.meaning: dict[RawValue, int] = {key: index for key, index in meaning.items()}
        self._keys = [_pack(key) for key in meaning]

    @cached_property
    def _table(self) -> np.ndarray:
        """Packed value -> class; that of colours takes 16 MB, so it is made when a label is read."""
        table = np.full(1 << 24 if self.colours else max(self._keys) + 1, _UNKNOWN, np.uint8)
        table[self._keys] = list(self.meaning.values())
        return table

    def __call__(self, raw: np.ndarray) -> np.ndarray:
        """Values [H, W] or colours [H, W, 3] -> uint8 [H, W], 255 for ignore.

        Raises `LabelError` for values or colours that the map does not know, and for colours where it expects values
        or the reverse.
        """
        if (raw.ndim == 3) != self.colours:
            expected, found = ("RGB colours", "single values") if self.colours else ("single values", "RGB colours")
            raise LabelError(f"label holds {found} where the class map expects {expected}")
        packed = raw
        if self.colours:
            wide = raw.astype(np.int32)
            packed = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
        if packed.size and (packed.min() < 0 or packed.max() >= len(self._table)):
            inside = (packed >= 0) & (packed < len(self._table))
            label = np.where(inside, self._table[np.where(inside, packed, 0)], np.uint8(_UNKNOWN))
        else:
            label = self._table[packed]
        lost = packed[label == _UNKNOWN]
        if lost.size:
            values, counts = np.unique(lost, return_counts=True)
            unknown = {self._unpack(int(values[i])): int(counts[i]) for i in np.argsort(-counts, kind="stable")}
            raise LabelError(f"label has {spell_counts(unknown)}, which the class map does not know", unknown)
        return label

    def _unpack(self, key: int) -> RawValue:
        return (key >> 16, key >> 8 & 255, key & 255) if self.colours else key


class EitherMap:
    """Two maps, where a label image may hold values as well as colours."""

    def __init__(self, by_value: LabelMap, by_colour: LabelMap) -> None:
        self.by_value, self.by_colour = by_value, by_colour

    def __call__(self, raw: np.ndarray) -> np.ndarray:
        """Values [H, W] or colours [H, W, 3] -> uint8 [H, W], 255 for ignore. Raises `LabelError`."""
        return self.by_colour(raw) if raw.ndim == 3 else self.by_value(raw)


def same(raw: np.ndarray) -> np.ndarray:
    """The map of labels that are stored as class indices."""
    return raw


def spell_counts(counts: Mapping[RawValue, int]) -> str:
    """ "value 7 in 120 pixels, value 9 in 4 pixels", or the same with colours; the first five."""
    kind = "colour" if any(isinstance(key, tuple) for key in counts) else "value"
    first = ", ".join(f"{kind} {_spell(key)} in {count} pixels" for key, count in list(counts.items())[:5])
    return first + (f" and {len(counts) - 5} more" if len(counts) > 5 else "")


def _spell(key: RawValue) -> str:
    return str(key) if isinstance(key, int) else "#{:02x}{:02x}{:02x}".format(*key)


def _pack(key: int | Sequence[int]) -> int:
    """A mask value as it is, a colour as 0xRRGGBB. Raises `ValueError` outside 0..65535 or 0..255."""
    if isinstance(key, int):
        if not 0 <= key <= 65535:
            raise ValueError(f"mask values go from 0 to 65535, not {key}")
        return key
    if len(key) != 3 or not all(0 <= part <= 255 for part in key):
        raise ValueError(f"a colour is three numbers from 0 to 255, not {list(key)}")
    return key[0] << 16 | key[1] << 8 | key[2]
