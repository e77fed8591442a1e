"""Labels as annotation tools export them: CVAT's "Segmentation mask 1.1", and COCO's through `coco_annotations.py`."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Protocol

import numpy as np

from nonlocalseg import images
from nonlocalseg.data.coco_annotations import COCOLabels, coco_files, split_of
from nonlocalseg.data.dataset import IGNORE, Colour, LabelMap, Pair
from nonlocalseg.data.official import match_listed

LABELMAP = "labelmap.txt"


class Export(Protocol):
    """What an export knows; `splits` is empty where it is not divided."""

    classes: tuple[str, ...]
    palette: tuple[Colour, ...]
    splits: tuple[str, ...]

    def find_pairs(self, split: str | None) -> tuple[list[Pair], list[Path]]:
        """Pairs of one split, of all for None, and the files that lack a partner."""
        ...

    def raw_label(self, pair: Pair) -> np.ndarray | None: ...

    def map_label(self, raw: np.ndarray) -> np.ndarray: ...


def find_export(root: Path) -> Export | None:
    """The export in `root`, None where it is neither CVAT's nor COCO's."""
    if (root / LABELMAP).is_file():
        return CVATMasks(root)
    files = coco_files(root)
    return COCOLabels(root, files) if files else None


class CVATMasks:
    """CVAT's "Segmentation mask 1.1", exported with images: `labelmap.txt`, `SegmentationClass/`, `JPEGImages/` (or
    `images/`) and the lists in `ImageSets/Segmentation/` (train.txt, val.txt, ..., or default.txt where the task has no
    subsets).

    The class `background` is one like the others; a label called `ignore` in labelmap.txt is ignored.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.classes, self.palette, self._by_colour, self._by_index = read_labelmap(root / LABELMAP)
        self._lists: dict[str | None, list[Path]] = defaultdict(list)
        for path in sorted((root / "ImageSets" / "Segmentation").glob("*.txt")):
            self._lists[split_of(path.stem)].append(path)
        self.splits = tuple(part for part in ("train", "val", "test") if part in self._lists)

    def find_pairs(self, split: str | None) -> tuple[list[Pair], list[Path]]:
        folder = next((self.root / name for name in ("JPEGImages", "images") if (self.root / name).is_dir()), None)
        if folder is None:
            raise FileNotFoundError(f"{self.root / 'JPEGImages'}: missing; export with images, or put them there")
        masks = self.root / "SegmentationClass"
        if not masks.is_dir():
            raise FileNotFoundError(f"{masks}: missing; export the task as Segmentation mask 1.1 again")
        pictures, labels = _by_path(folder), _by_path(masks)
        lists = [path for part, paths in self._lists.items() if split in (None, part) for path in paths]
        if not lists:
            listed = sorted(pictures.keys() | labels.keys())
            return match_listed(listed, pictures, labels, masks)
        pairs: list[Pair] = []
        unmatched: list[Path] = []
        for path in lists:
            listed = [re.sub(r"[\\/]", "__", name) for name in read_names(path)]
            found, alone = match_listed(listed, pictures, labels, path)
            pairs += found
            unmatched += alone
        return pairs, unmatched

    def raw_label(self, pair: Pair) -> np.ndarray | None:
        return None if pair.label is None else images.read_mask(pair.label)

    def map_label(self, raw: np.ndarray) -> np.ndarray:
        """RGB masks by colour; palette and grey masks by the order of labelmap.txt."""
        return self._by_colour(raw) if raw.ndim == 3 else self._by_index(raw)


def read_names(path: Path) -> list[str]:
    """Lines of an ImageSets list: names that may hold folders and blanks, with or without a suffix."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    stems = (
        line[: -len(Path(line).suffix)] if Path(line).suffix.lower() in images.SUFFIXES else line for line in lines
    )
    return [stem for stem in stems if stem]


def _by_path(folder: Path) -> dict[str, Path]:
    """Path below `folder` without suffix, "a__b" for a/b -> file."""
    files = images.images_below(folder)
    return {file.relative_to(folder).with_suffix("").as_posix().replace("/", "__"): file for file in files}


def read_labelmap(path: Path) -> tuple[tuple[str, ...], tuple[Colour, ...], LabelMap, LabelMap]:
    """Classes, palette, what colours mean and what indices mean, from CVAT's `label:r,g,b:parts:actions` lines.

    Raises `ValueError` that names the line: one that is not of this form, a label or a colour that stands there twice.
    """
    found: dict[str, Colour] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        parts = line.strip().rsplit(":", 3)
        numbers = re.fullmatch(r"\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*", parts[1]) if len(parts) == 4 else None
        if numbers is None or max(map(int, numbers.groups())) > 255:
            raise ValueError(
                f"{path}: line {number}: expected `label:red,green,blue:parts:actions`, found {line.strip()!r}"
            )
        red, green, blue = map(int, numbers.groups())
        if parts[0] in found:
            raise ValueError(f"{path}: line {number}: {parts[0]} stands there twice; remove one of the lines")
        if (red, green, blue) in found.values():
            other = next(name for name, colour in found.items() if colour == (red, green, blue))
            raise ValueError(
                f"{path}: line {number}: {parts[0]} and {other} have one colour; change one and export again"
            )
        found[parts[0]] = (red, green, blue)
    classes = tuple(name for name in found if name != "ignore")
    if not classes:
        raise ValueError(f"{path}: holds no label; export the task as Segmentation mask 1.1 again")
    index = {**{name: number for number, name in enumerate(classes)}, "ignore": IGNORE}
    by_colour = LabelMap({colour: index[name] for name, colour in found.items()})
    by_index = LabelMap({place: index[name] for place, name in enumerate(found)})
    return classes, tuple(found[name] for name in classes), by_colour, by_index
