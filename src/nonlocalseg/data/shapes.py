"""Shapes of named classes over images, as labelling tools hold them: masks taken apart, and drawn again as labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nonlocalseg.data.dataset import Discovery, Labels
from nonlocalseg.data.pairing import Pair
from nonlocalseg.labels import IGNORE, Colour, check_class_names, default_palette, same

BACKGROUND = "background"
Place = tuple[slice, slice]
"""Rows and columns."""


@dataclass(frozen=True)
class Region:
    """What one class covers: its index, the smallest part of the image that holds it, and which pixels there, bool."""

    index: int
    place: Place
    mask: np.ndarray

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, width and height."""
        rows, columns = self.place
        return columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start


def regions_of(mask: np.ndarray) -> Iterator[Region]:
    """Every class that occurs in the class indices [H, W], in their order."""
    from scipy import ndimage

    for index, place in enumerate(ndimage.find_objects(mask.astype(np.int32) + 1)):
        if place is not None:
            yield Region(index, place, mask[place] == index)


@dataclass(frozen=True)
class Shape:
    """draw: the size of the image, height and width -> bool [H, W]. Raises `ValueError` for a shape that is none."""

    label: str
    draw: Callable[[tuple[int, int]], np.ndarray]


@dataclass(frozen=True)
class Sheet:
    """The shapes on one image, later ones over earlier ones. name: the image's path in the tool. size: height, width."""

    name: str
    size: tuple[int, int]
    shapes: Sequence[Shape]


@dataclass(frozen=True)
class SheetFile:
    """What a file of annotations holds. colours: of the labels, as far as it has them. left: shapes of other kinds."""

    path: Path
    labels: Sequence[str]
    colours: dict[str, Colour]
    sheets: Sequence[Sheet]
    left: int = 0


@dataclass(frozen=True)
class ShapesExport:
    """Files of shapes with the images beside them, in `images` or in `root`, or further down under the same name.

    Classes are the labels in the files' order; what no shape covers is the class `background`, put first unless a label
    has that name, and what a shape called `ignore` covers is ignored.
    """

    root: Path
    files: Sequence[Path]
    read: Callable[[Path], SheetFile]
    splits: tuple[str, ...] = ()

    def discover(self, split: str | None) -> Discovery:
        found = [self.read(path) for path in self.files]
        names = list(dict.fromkeys(name for file in found for name in file.labels))
        try:
            check_class_names(names)
            classes = tuple(
                name for name in [*([] if BACKGROUND in names else [BACKGROUND]), *names] if name != "ignore"
            )
            if len(classes) > IGNORE - 1:
                raise ValueError(f"{len(classes)} classes, a label tells {IGNORE - 1} apart")
        except ValueError as error:
            raise ValueError(f"{self.files[0]}: {error}") from None
        pairs: list[Pair] = []
        unmatched: list[Path] = []
        sheets: dict[tuple[Path, str], Sheet] = {}
        for file in found:
            for sheet in file.sheets:
                name, picture = _stem(sheet.name), self._picture(sheet.name)
                if (file.path, name) in sheets:
                    raise ValueError(f"{file.path}: lists the image {sheet.name} twice; remove one of the entries")
                sheets[file.path, name] = sheet
                if picture.is_file():
                    pairs.append(Pair(name, picture, file.path))
                else:
                    unmatched.append(picture)
        colours = {name: colour for file in found for name, colour in file.colours.items()}
        palette = tuple(
            colours.get(name, (0, 0, 0) if name == BACKGROUND else spare)
            for name, spare in zip(classes, default_palette(len(classes)), strict=True)
        )
        left = sum(file.left for file in found)
        notes = (f"{left} annotations are neither masks nor polygons: they were left out",) if left else ()
        labels = Labels(same(len(classes)), SheetLabels(sheets, classes).stored)
        return Discovery(tuple(sorted(pairs, key=lambda p: p.name)), tuple(unmatched), classes, palette, labels, notes)

    def _picture(self, name: str) -> Path:
        """Where an image lies, or should lie; a name can lead nowhere else."""
        parts = [part for part in Path(name.replace("\\", "/")).parts if part not in ("/", "..", ".")]
        below = [Path(*parts[first:]) for first in range(len(parts))]
        places = [self.root / folder / path for path in below for folder in ("images", ".")]
        return next((place for place in places if place.is_file()), (places or [self.root / "images"])[0])


def _stem(name: str) -> str:
    return Path(name.replace("\\", "/")).with_suffix("").as_posix().strip("/").replace("/", "__")


@dataclass(frozen=True)
class SheetLabels:
    """Draws the shapes on an image as its label."""

    sheets: dict[tuple[Path, str], Sheet]
    classes: tuple[str, ...]

    def stored(self, path: Path, name: str) -> np.ndarray:
        """Class indices uint8 [H, W] of the image `name` of a file. Raises `ValueError` that names both."""
        sheet = self.sheets[path, name]
        label = np.full(sheet.size, self.classes.index(BACKGROUND), np.uint8)
        for shape in sheet.shapes:
            try:
                label[shape.draw(sheet.size)] = IGNORE if shape.label == "ignore" else self.classes.index(shape.label)
            except ValueError as error:
                raise ValueError(f"{path}: {sheet.name}: {shape.label}: {error}") from None
        return label
