"""A name among known ones, or the one error that every misspelt name ends in."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

MOST_SHOWN = 16  # names that an error lists


def pick(what: str, name: str, known: Iterable[str]) -> str:
    """`name`, if it is among `known`; else a ValueError that names the nearest, or all where none is near."""
    names = list(known)
    if name in names:
        return name
    raise ValueError(f"unknown {what} {name!r}: {hint(name, names)}")


def hint(name: str, names: Iterable[str]) -> str:
    """How to mend a misspelt name: the nearest of `names`, or all of them where none is near."""
    every = list(names)
    near = get_close_matches(str(name), every, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    shown = ", ".join(every[:MOST_SHOWN])
    return f"choose from {shown}" + (f" and {len(every) - MOST_SHOWN} more" if len(every) > MOST_SHOWN else "")
