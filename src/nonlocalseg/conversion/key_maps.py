"""Tables from the module paths of another project to ours, and how they are applied both ways.

A path stands for everything below it: the names of parameters (weight, bias, running_mean, ...) agree. `#` stands for a
number, and the numbers of a key keep their order: {"stages.#.conv": "branches.#.conv"}. Several of their paths may lead
to one of ours, where one module has two names there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

Table = dict[str, str]


def conv_norm(source: str, ours: str, conv: str, norm: str) -> Table:
    """A convolution and its norm: `source` + `conv` or `norm` in the other project, `.conv` and `.norm` in ours."""
    return {source + conv: f"{ours}.conv", source + norm: f"{ours}.norm"}


def modules(pairs: Mapping[str, str], conv: str, norm: str) -> Table:
    return {k: v for source, ours in pairs.items() for k, v in conv_norm(source, ours, conv, norm).items()}


def below(table: Table, source: str = "", ours: str = "") -> Table:
    """The same table for modules that stand below `source` there and below `ours` here."""
    return {_joined(source, theirs): _joined(ours, mine) for theirs, mine in table.items()}


def renamed(state: Mapping[str, Tensor], table: Table) -> tuple[dict[str, Tensor], list[str]]:
    """`state` under our names, and the keys that have no place.

    Raises ValueError where two keys that lead to one of ours hold different values.
    """
    rows = _rows(table)
    found: dict[str, Tensor] = {}
    unknown = []
    for key, value in state.items():
        ours = next((name for pattern, target in rows if (name := _renamed(key, pattern, target)) is not None), None)
        if ours is None:
            unknown.append(key)
        elif ours in found and not _equal(found[ours], value):
            raise ValueError(f"{key} differs from the key it is tied to: key and query are one module there")
        else:
            found[ours] = value
    return found, unknown


def renamed_back(state: Mapping[str, Tensor], table: Table) -> tuple[dict[str, Tensor], list[str]]:
    """Our `state` under their names, under every one of several; and the keys that have no place there."""
    targets: dict[str, list[str]] = {}
    for theirs, ours in table.items():
        targets.setdefault(ours, []).append(theirs)
    rows = _rows({ours: ours for ours in targets})
    found: dict[str, Tensor] = {}
    unknown = []
    for key, value in state.items():
        ours = next((ours for pattern, ours in rows if pattern.match(key)), None)
        for theirs in targets.get(ours or "", []):
            name = _renamed(key, _pattern(str(ours)), theirs)
            assert name is not None
            found[name] = value
        if ours is None:
            unknown.append(key)
    return found, unknown


def _rows(table: Table) -> list[tuple[re.Pattern[str], str]]:
    """Patterns and targets, the most exact first."""
    ordered = sorted(table, key=lambda path: (-path.count("."), path.count("#"), -len(path)))
    return [(_pattern(path), table[path]) for path in ordered]


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.escape(path).replace(r"\#", r"(\d+)") + r"(?=\.|$)")


def _renamed(key: str, pattern: re.Pattern[str], target: str) -> str | None:
    found = pattern.match(key)
    if found is None:
        return None
    for number in found.groups():
        target = target.replace("#", number, 1)
    return (target + key[found.end() :]).lstrip(".")


def _equal(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and bool((first == second).all())


def _joined(*parts: str) -> str:
    return ".".join(part for part in parts if part)


LAYERS: Table = {"layer#": "backbone.body.layer#"}
"""The stages of every ResNet."""
