"""Anybody's own images: two folders and a `classes.yaml` that says what the masks mean, or an export of CVAT or COCO."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import yaml
from annotated_types import Gt, Lt

from nonlocalseg import images
from nonlocalseg.data.dataset import DatasetOptions, Discovery, Labels, SegmentationDataset
from nonlocalseg.data.exports import Export, find_export
from nonlocalseg.data.layouts import subfolder
from nonlocalseg.data.pairing import Matched, Pair, join, match_folders, spell_names, unlabelled
from nonlocalseg.labels import IGNORE, Colour, LabelMap, default_colour
from nonlocalseg.values import value

CLASSES_FILE = "classes.yaml"
_EXAMPLE = "masks: {0: ignore, 1: road, 2: car}"


@value
class FolderOptions(DatasetOptions):
    val_fraction: Annotated[float, Gt(0), Lt(1)] | None = None
    "For one folder of images: the share that is kept for validation, by their names."


class Folder(SegmentationDataset):
    """Images and masks that share a name, below `root`, in one of two layouts:

        images/{train,val,test}/...    masks/{train,val,test}/...    (masks/test may be missing)
        images/...                     masks/...                     (and the option val_fraction)

    and beside them `classes.yaml`, which maps every mask value, or every mask colour, to a class name or `ignore`:

        masks:                     masks:
          0: ignore                  "#000000": ignore      # colours as "#rrggbb" (in quotes) ...
          1: road                    [128, 64, 128]: road   # ... or [r, g, b]
          2: car                     "#0000e6": car
          3: car    # a van          "#000046": car
        palette:                   # optional: the colour of a class in pictures
          road: "#804080"

    Classes are numbered in the order of their first mention. For 0/255 masks write `0: background` and `255: thing`.
    Without `classes.yaml`, `root` may also be an export: CVAT's "Segmentation mask 1.1" (`labelmap.txt`) or COCO's
    instances or panoptic annotations (`annotations/*.json`); `data/exports.py` says how they are read.

    The split `all` is every image of every split. With `val_fraction` an image falls into `val` or `train` by its
    name alone, so images added later move none of the others.
    """

    splits = ("train", "val", "test", "all")
    Options = FolderOptions
    options: FolderOptions

    @classmethod
    def disjoint_splits(cls, root: Path, options: FolderOptions) -> tuple[str, ...]:
        if options.val_fraction is not None:
            return ("train", "val")
        export = _export_in(root)
        if export is not None:
            return export.splits or ("all",)
        parts = _parts_of(root / "images")
        return ("train", "val", *(["test"] if "test" in parts else [])) if parts else ("all",)

    def discover(self) -> Discovery:
        export = _export_in(self.root)
        if export is not None:
            return self._exported(export)
        pairs, unmatched = self._matched(subfolder(self.root, "images"), subfolder(self.root, "masks"))
        classes, palette, meaning = read_classes(self.root / CLASSES_FILE)
        return Discovery(tuple(pairs), tuple(unmatched), classes, palette, Labels(meaning), spell_names(pairs))

    def _exported(self, export: Export) -> Discovery:
        if export.splits and self.options.val_fraction is not None:
            raise ValueError(f"{self.root} already has {', '.join(export.splits)}; leave val_fraction out")
        if export.splits and self.split not in (*export.splits, "all"):
            raise ValueError(f"{self.root} has no split {self.split}; it has {', '.join(export.splits)}")
        found = export.discover(self.split if export.splits and self.split != "all" else None)
        if export.splits or self.split == "all":
            return found
        return replace(found, pairs=tuple(self._by_fraction(found.pairs, f"{self.root} has no split")))

    def _matched(self, image_root: Path, label_root: Path) -> Matched:
        parts = _parts_of(image_root)
        if not parts:
            pairs, alone = match_folders(image_root, label_root)
            if self.split == "all":
                return pairs, alone
            return self._by_fraction(pairs, f"{image_root} has no folder"), alone
        if self.options.val_fraction is not None:
            raise ValueError(f"{image_root} already has {', '.join(parts)}; leave val_fraction out")
        if self.split != "all":
            return self._part(self.split)
        return join(_prefixed(part, *self._part(part)) for part in parts)

    def _part(self, part: str) -> Matched:
        folder = subfolder(self.root, "images", part)
        if part == "test" and not (self.root / "masks" / part).is_dir():
            return unlabelled((file.stem, file) for file in images.images_below(folder))
        return match_folders(folder, subfolder(self.root, "masks", part))

    def _by_fraction(self, pairs: Sequence[Pair], lacks: str) -> list[Pair]:
        fraction = self.options.val_fraction
        if fraction is None or self.split == "test":
            cure = "add images/test" if self.split == "test" else "give val_fraction (0.2, say)"
            raise ValueError(f"{lacks} {self.split}; {cure}")
        wanted = [pair for pair in pairs if (_position(pair.name) < fraction) == (self.split == "val")]
        if pairs and not wanted:
            raise ValueError(f"val_fraction {fraction} leaves no image in {self.split} (of {len(pairs)})")
        return wanted


def read_classes(path: Path) -> tuple[tuple[str, ...], tuple[Colour, ...], LabelMap]:
    """Class names, palette and label map from a `classes.yaml`. Raises `ValueError` that names file and line or key."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; it says what the masks mean, for example {_EXAMPLE}")
    text = path.read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(r"\s*#[0-9a-fA-F]{6}\s*:", line):
            raise ValueError(f'{path}: line {number}: put the colour in quotes ("#rrggbb"): a bare # is a comment')
    try:
        content = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
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


def _export_in(root: Path) -> Export | None:
    return None if (root / CLASSES_FILE).is_file() else find_export(root)


def _parts_of(image_root: Path) -> list[str]:
    return [part for part in ("train", "val", "test") if (image_root / part).is_dir()]


def _prefixed(part: str, pairs: Sequence[Pair], unmatched: list[Path]) -> Matched:
    """Pairs whose names say which split they come from."""
    return [replace(pair, name=f"{part}__{pair.name}") for pair in pairs], unmatched


def _position(name: str) -> float:
    """A number in [0, 1) that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


class _Loader(yaml.SafeLoader):
    """YAML whose lists can be keys ([r, g, b]: road) and whose doubled keys are an error."""


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
