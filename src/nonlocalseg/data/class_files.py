"""`classes.yaml`: what the masks of a folder mean, as people write it."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from nonlocalseg.files import read_text
from nonlocalseg.labels import IGNORE, Colour, LabelMap, check_class_names, default_colour

_EXAMPLE = "masks: {0: ignore, 1: road, 2: car}"
_LARGEST = 1 << 20  # bytes: 254 classes need a few thousand


def read_classes(path: Path) -> tuple[tuple[str, ...], tuple[Colour, ...], LabelMap]:
    """Class names, palette and label map from a `classes.yaml`. Raises `ValueError` that names file and line or key."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; it says what the masks mean, for example {_EXAMPLE}")
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"{path}: more than {_LARGEST >> 20} MB; it only says what the masks mean, as in {_EXAMPLE}")
    text = read_text(path)
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(r"\s*#[0-9a-fA-F]{6}\s*:", line):
            raise ValueError(f'{path}: line {number}: put the colour in quotes ("#rrggbb"): a bare # is a comment')
    try:
        content = yaml.load(text, _Loader)
    except RecursionError:
        raise ValueError(f"{path}: lists within lists within lists; write it as in {_EXAMPLE}") from None
    except (yaml.YAMLError, ValueError, TypeError, OverflowError) as error:  # dates and numbers that cannot be
        raise ValueError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not isinstance(content.get("masks"), dict) or not content["masks"]:
        raise ValueError(f"{path}: needs an entry `masks` that maps values to class names, as in {_EXAMPLE}")
    if extra := content.keys() - {"masks", "palette"}:
        raise ValueError(f"{path}: unknown entry {sorted(map(str, extra))[0]}; it has `masks` and `palette`")
    try:
        return _interpret(content["masks"], content.get("palette") or {})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _interpret(masks: dict[Any, Any], palette: dict[str, Any]) -> tuple[tuple[str, ...], tuple[Colour, ...], LabelMap]:
    for key, name in masks.items():
        if isinstance(key, bool):
            raise ValueError(f"the key of {name} reads as {key}; write a mask value or a colour")
        if not isinstance(name, str):
            raise ValueError(f"the class of {key} is {name}, which is no text; put the name in quotes")
    classes = tuple(dict.fromkeys(name for name in masks.values() if name != "ignore"))
    check_class_names(classes)
    if not classes:
        raise ValueError("every value is ignored; name at least one class")
    index = {**{name: number for number, name in enumerate(classes)}, "ignore": IGNORE}
    meaning = {key if isinstance(key, int) else parse_colour(key): index[name] for key, name in masks.items()}
    values = {key: number for key, number in meaning.items() if isinstance(key, int)}
    coloured = {key: number for key, number in meaning.items() if not isinstance(key, int)}
    if values and coloured:
        raise ValueError("a class map holds either mask values or colours, not both")
    if len(meaning) < len(masks):
        raise ValueError("a colour stands there twice")
    if not isinstance(palette, dict) or (unknown := [name for name in palette if name not in classes]):
        raise ValueError(f"palette has {unknown[0] if isinstance(palette, dict) else palette}, which is no class")
    colours = {name: key for key, name in zip(reversed(meaning), reversed(masks.values()), strict=True)}
    drawn = {name: key for name, key in colours.items() if isinstance(key, tuple)}
    drawn |= {name: parse_colour(colour) for name, colour in palette.items()}
    return (
        classes,
        tuple(drawn.get(name, default_colour(index[name])) for name in classes),
        LabelMap(values=values, colours=coloured),
    )


def parse_colour(text: Any) -> Colour:
    """ "#rrggbb" or [r, g, b] -> (r, g, b). Raises `ValueError` for anything else."""
    if isinstance(text, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)
    if isinstance(text, tuple) and len(text) == 3 and all(isinstance(part, int) and 0 <= part <= 255 for part in text):
        return text[0], text[1], text[2]
    raise ValueError(f'{text!r} is neither a mask value nor a colour: write 7, "#ff8000" or [255, 128, 0]')


class _Loader(yaml.SafeLoader):
    """YAML whose lists can be keys ([r, g, b]: road), whose doubled keys are an error, and that has no aliases: a few
    lines of them can stand for gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"line {self.peek_event().start_mark.line + 1}: an alias (*); write it out")
        return super().compose_node(parent, index)


def _sequence(loader: yaml.SafeLoader, node: yaml.SequenceNode) -> tuple[Any, ...]:
    return tuple(loader.construct_sequence(node, deep=True))


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    content: dict[Hashable, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in content:
            raise yaml.YAMLError(f"line {key_node.start_mark.line + 1}: {key} stands there twice")
        content[key] = loader.construct_object(value_node, deep=True)
    return content


_Loader.add_constructor("tag:yaml.org,2002:seq", _sequence)
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
