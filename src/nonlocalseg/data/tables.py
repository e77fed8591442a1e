"""Class names, colours and numbers written as text, so that the long tables of the data sets stay readable."""

from __future__ import annotations

from collections.abc import Sequence

from nonlocalseg.labels import Colour


def names(text: str) -> tuple[str, ...]:
    """ "road, traffic light" -> ("road", "traffic light")."""
    return tuple(name.strip() for name in text.split(","))


def colours(text: str) -> tuple[Colour, ...]:
    """ "804080 f423e8" -> ((128, 64, 128), (244, 35, 232))."""
    return tuple((int(c[:2], 16), int(c[2:4], 16), int(c[4:], 16)) for c in text.split())


def distinct(palette: Sequence[Colour]) -> tuple[Colour, ...]:
    """The palette, where the second class of a colour gets the nearest free one of more (or less) blue and green.

    Some published palettes give two classes one colour, which makes pictures ambiguous.
    """
    taken = set(palette)
    seen: set[Colour] = set()
    result: list[Colour] = []
    for red, green, blue in palette:
        colour = (red, green, blue)
        step = 1
        while colour in seen:
            moved = (red, (green + 32 * (step // 8)) % 256, (blue + 32 * step) % 256)
            colour = moved if moved not in taken else colour
            step += 1
        seen.add(colour)
        taken.add(colour)
        result.append(colour)
    return tuple(result)


def numbers(text: str) -> tuple[int, ...]:
    """ "3-5 9" -> (3, 4, 5, 9)."""
    found: list[int] = []
    for part in text.split():
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return tuple(found)
