"""Labels as annotation tools export them: CVAT's "Segmentation mask 1.1" here, and which files are of which tool."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nonlocalseg import images
from nonlocalseg.data import cvat
from nonlocalseg.data.coco_annotations import COCOAnnotations, coco_files, split_of
from nonlocalseg.data.dataset import Discovery, Labels
from nonlocalseg.data.geojson import geojson_files, read_geojson
from nonlocalseg.data.label_studio import is_label_studio, read_label_studio
from nonlocalseg.data.pairing import Matched, join, match_listed
from nonlocalseg.data.shapes import ShapesExport
from nonlocalseg.files import read_text
from nonlocalseg.labels import IGNORE, Colour, LabelMap, check_class_names

LABELMAP = "labelmap.txt"
_MOST_CLASSES = 253


class Export(Protocol):
    """An export that was found; `splits` is empty where it is not divided."""

    @property
    def splits(self) -> tuple[str, ...]: ...

    def discover(self, split: str | None) -> Discovery:
        """What there is of one split, of all for None."""
        ...


def find_export(root: Path) -> Export | None:
    """The export in `root`: CVAT's masks, COCO's annotations, CVAT's XML, Label Studio's JSON, GeoJSON; None without."""
    if (root / LABELMAP).is_file():
        return CVATMasks(root)
    if files := coco_files(root):
        return COCOAnnotations(root, files)
    if (root / cvat.ANNOTATIONS).is_file():
        return ShapesExport(root, [root / cvat.ANNOTATIONS], cvat.read_cvat)
    tasks = [path for path in sorted(root.glob("*.json")) if path.name != cvat.LABELS and is_label_studio(path)]
    if tasks:
        return ShapesExport(root, tasks, read_label_studio)
    described = geojson_files(root)
    return ShapesExport(root, described, read_geojson) if described else None


@dataclass(frozen=True)
class CVATMasks:
    """CVAT's "Segmentation mask 1.1", exported with images: `labelmap.txt`, `SegmentationClass/`, `JPEGImages/` (or
    `images/`) and the lists in `ImageSets/Segmentation/` (train.txt, val.txt, ..., or default.txt where the task has no
    subsets).

    RGB masks are read by colour, palette and grey masks by the order of labelmap.txt. The class `background` is one
    like the others; a label called `ignore` in labelmap.txt is ignored.
    """

    root: Path

    @property
    def lists(self) -> list[Path]:
        return sorted((self.root / "ImageSets" / "Segmentation").glob("*.txt"))

    @property
    def splits(self) -> tuple[str, ...]:
        listed = {split_of(path.stem) for path in self.lists}
        return tuple(part for part in ("train", "val", "test") if part in listed)

    def discover(self, split: str | None) -> Discovery:
        classes, palette, meaning = read_labelmap(self.root / LABELMAP)
        pairs, unmatched = self._match(split)
        return Discovery(tuple(pairs), tuple(unmatched), classes, palette, Labels(meaning))

    def _match(self, split: str | None) -> Matched:
        folder = next((self.root / name for name in ("JPEGImages", "images") if (self.root / name).is_dir()), None)
        if folder is None:
            raise FileNotFoundError(f"{self.root / 'JPEGImages'}: missing; export with images, or put them there")
        masks = self.root / "SegmentationClass"
        if not masks.is_dir():
            raise FileNotFoundError(f"{masks}: missing; export the task as Segmentation mask 1.1 again")
        pictures, labels = _by_path(folder), _by_path(masks)
        lists = [path for path in self.lists if split in (None, split_of(path.stem))]
        if not lists:
            return match_listed(sorted(pictures.keys() | labels.keys()), pictures, labels, masks)
        return join(match_listed(read_names(path), pictures, labels, path) for path in lists)


def read_names(path: Path) -> list[str]:
    """Lines of an ImageSets list, "a__b" for a/b: names may hold folders and blanks, with or without a suffix."""
    lines = [line.strip() for line in read_text(path).splitlines()]
    stems = (
        line[: -len(Path(line).suffix)] if Path(line).suffix.lower() in images.SUFFIXES else line for line in lines
    )
    return [re.sub(r"[\\/]", "__", stem) for stem in stems if stem]


def _by_path(folder: Path) -> dict[str, Path]:
    """Path below `folder` without suffix, "a__b" for a/b -> file."""
    files = images.images_below(folder)
    return {file.relative_to(folder).with_suffix("").as_posix().replace("/", "__"): file for file in files}


def read_labelmap(path: Path) -> tuple[tuple[str, ...], tuple[Colour, ...], LabelMap]:
    """Classes, palette, and what colours and indices mean, from CVAT's `label:r,g,b:parts:actions` lines.

    Raises `ValueError` that names the line: one that is not of this form, a label or a colour that stands there twice.
    """
    found: dict[str, Colour] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            name, colour = _label_of(line.strip(), found)
        except ValueError as error:
            raise ValueError(f"{path}: line {number}: {error}") from None
        found[name] = colour
    classes = tuple(name for name in found if name != "ignore")
    if not classes:
        raise ValueError(f"{path}: holds no label; export the task as Segmentation mask 1.1 again")
    if len(classes) > _MOST_CLASSES:
        raise ValueError(f"{path}: has {len(classes)} labels; a mask tells {_MOST_CLASSES} apart")
    index = {**{name: number for number, name in enumerate(classes)}, "ignore": IGNORE}
    meaning = LabelMap(
        values={place: index[name] for place, name in enumerate(found)},
        colours={colour: index[name] for name, colour in found.items()},
    )
    return classes, tuple(found[name] for name in classes), meaning


def _label_of(line: str, before: Mapping[str, Colour]) -> tuple[str, Colour]:
    parts = line.rsplit(":", 3)
    numbers = re.fullmatch(r"\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*", parts[1]) if len(parts) == 4 else None
    if numbers is None or max(map(int, numbers.groups())) > 255:
        raise ValueError(f"expected `label:red,green,blue:parts:actions`, found {line!r}")
    name, (red, green, blue) = parts[0], map(int, numbers.groups())
    check_class_names([name])
    if name in before:
        raise ValueError(f"{name} stands there twice; remove one of the lines")
    other = next((other for other, colour in before.items() if colour == (red, green, blue)), None)
    if other is not None:
        raise ValueError(f"{name} and {other} have one colour; change one and export again")
    return name, (red, green, blue)
