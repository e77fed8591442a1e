"""Anybody's own images: two folders and a `classes.yaml` that says what the masks mean, or an export of CVAT or COCO."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from annotated_types import Gt, Lt

from nonlocalseg import images
from nonlocalseg.data.class_files import read_classes
from nonlocalseg.data.dataset import DatasetOptions, Discovery, Labels, SegmentationDataset
from nonlocalseg.data.exports import Export, find_export
from nonlocalseg.data.layouts import subfolder
from nonlocalseg.data.pairing import Matched, Pair, join, match_folders, spell_names, unlabelled
from nonlocalseg.values import value

CLASSES_FILE = "classes.yaml"
USUAL_FRACTION = 0.2


@value
class FolderOptions(DatasetOptions):
    val_fraction: Annotated[float, Gt(0), Lt(1)] | None = None
    "For one folder of images: the share that is kept for validation, by their names; by default 0.2."


class Folder(SegmentationDataset):
    """Images and masks that share a name, below `root`, in one of two layouts:

        images/{train,val,test}/...    masks/{train,val,test}/...    (masks/test may be missing)
        images/...                     masks/...                     (split by the option val_fraction)

    and beside them `classes.yaml`, which maps every mask value, or every mask colour, to a class name or `ignore`:

        masks:                     masks:
          0: ignore                  "#000000": ignore      # colours as "#rrggbb" (in quotes) ...
          1: road                    [128, 64, 128]: road   # ... or [r, g, b]
          2: car                     "#0000e6": car
          3: car    # a van          "#000046": car
        palette:                   # optional: the colour of a class in pictures
          road: "#804080"

    Classes are numbered in the order of their first mention. For 0/255 masks write `0: background` and `255: thing`.
    Without `classes.yaml`, `root` may also be an export: CVAT's "Segmentation mask 1.1" (`labelmap.txt`) or "CVAT for
    images 1.1" (`annotations.xml`), COCO's instances or panoptic annotations (`annotations/*.json`), Label Studio's JSON
    (`*.json`) or GeoJSON in pixels (`geojson/NAME.geojson`), each with its images in `images/`; `data/exports.py` says
    how they are read.

    The split `all` is every image of every split. In one folder an image falls into `val` or `train` by its name
    alone, so images added later move none of the others.
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
        if self.split == "test":
            raise ValueError(f"{lacks} test; add images/test")
        fraction = self.options.val_fraction or USUAL_FRACTION
        wanted = [pair for pair in pairs if (_position(pair.name) < fraction) == (self.split == "val")]
        if pairs and not wanted:
            raise ValueError(f"val_fraction {fraction} leaves no image in {self.split} (of {len(pairs)})")
        return wanted


def _export_in(root: Path) -> Export | None:
    return None if (root / CLASSES_FILE).is_file() else find_export(root)


def _parts_of(image_root: Path) -> list[str]:
    return [part for part in ("train", "val", "test") if (image_root / part).is_dir()]


def _prefixed(part: str, pairs: Sequence[Pair], unmatched: list[Path]) -> Matched:
    """Pairs whose names say which split they come from."""
    return [replace(pair, name=f"{part}__{pair.name}") for pair in pairs], unmatched


def _position(name: str) -> float:
    """A number in [0, 1) that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(name.encode(errors="surrogateescape")).digest()[:8], "big") / 2**64
