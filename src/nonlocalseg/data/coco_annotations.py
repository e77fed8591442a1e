"""COCO's annotations as class images: `instances_*.json` drawn, `panoptic_*.json` looked up (cocodataset.org, format)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nonlocalseg import images
from nonlocalseg.data import run_lengths
from nonlocalseg.data.coco_format import AnnotationFile, Categories, Instance, Panoptic, Polygon, read_annotations
from nonlocalseg.data.dataset import Discovery, Labels
from nonlocalseg.data.outlines import fill_rings
from nonlocalseg.data.pairing import Pair
from nonlocalseg.labels import IGNORE, same

_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Annotated:
    """Height and width of an image, its instances, and its panoptic label where it has one."""

    size: tuple[int, int]
    instances: Sequence[Instance]
    panoptic: Panoptic | None


def split_of(stem: str) -> str | None:
    """The split that a name such as train2017 or Validation begins with."""
    return next((split for split in _SPLITS if stem.lower().startswith(split)), None)


def coco_files(root: Path) -> dict[str, Path]:
    """ "train2017" -> `annotations/instances_train2017.json`, or the panoptic one where both are there."""
    found: dict[str, Path] = {}
    for kind in ("instances", "panoptic"):
        for path in sorted((root / "annotations").glob(f"{kind}_*.json")):
            found[path.stem.removeprefix(f"{kind}_")] = path
    return found


@dataclass(frozen=True)
class COCOAnnotations:
    """COCO's `annotations/{instances,panoptic}_NAME.json`, where NAME begins with train, val or test, or is another one
    (`default`) for data that is not divided. Images lie in `images/NAME`, `NAME` or `images`, panoptic label images in
    `annotations/panoptic_NAME` or `panoptic_NAME`.

    Classes are the categories in the order of their ids. With instances, what no instance covers is the class
    `background`, put first unless a category has that name; small instances lie over large ones, and crowds without an
    instance on them are ignored. Where all that the first file annotates is a crowd, as labelling tools export what was
    painted with a brush, crowds are instances like others. With panoptic labels, what no segment covers is ignored.
    """

    root: Path
    files: Mapping[str, Path]

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(part for part in _SPLITS if part in map(split_of, self.files))

    def discover(self, split: str | None) -> Discovery:
        first = next((name for name in self.files if split_of(name) == "train"), next(iter(self.files)))
        chosen = [name for name in self.files if split in (None, split_of(name))]
        content = {name: read_annotations(self.files[name]) for name in dict.fromkeys([first, *chosen])}
        categories, painted = content[first].categories, _painted(content[first])
        pairs: list[Pair] = []
        unmatched: list[Path] = []
        annotated: dict[tuple[Path, str], Annotated] = {}
        for name in chosen:
            path, found = self.files[name], content[name].categories
            if (found.classes, found.index) != (categories.classes, categories.index):
                raise ValueError(f"{path}: has other categories than the annotations of train; export them together")
            for stem, picture, drawn in self._images(name, content[name]):
                if (path, stem) in annotated:
                    raise ValueError(f"{path}: lists the image {stem} twice; remove one of the entries")
                annotated[path, stem] = drawn
                if picture.is_file():
                    pairs.append(Pair(stem, picture, path))
                else:
                    unmatched.append(picture)
        labels = Labels(same(len(categories.classes)), COCOLabels(self.root, categories, annotated, painted).stored)
        notes = _notes([content[name] for name in chosen], painted)
        return Discovery(tuple(pairs), tuple(unmatched), categories.classes, categories.palette, labels, notes)

    def _images(self, name: str, content: AnnotationFile) -> Iterator[tuple[str, Path, Annotated]]:
        """Every image of one file: its name in the data set, where it should lie, and its annotations."""
        for item in sorted(content.images, key=lambda item: item["file_name"]):
            places = [self.root / place / item["file_name"] for place in (f"images/{name}", name, "images", ".")]
            picture = next((place for place in places if place.is_file()), places[0])
            stem = Path(item["file_name"]).with_suffix("").as_posix().replace("/", "__")
            size, key = (item["height"], item["width"]), item["id"]
            yield stem, picture, Annotated(size, content.instances.get(key, ()), content.panoptic.get(key))


def _painted(content: AnnotationFile) -> bool:
    """Whether all that a file annotates is marked as a crowd."""
    return all(one.get("iscrowd") for some in content.instances.values() for one in some)


def _notes(content: Sequence[AnnotationFile], painted: bool) -> tuple[str, ...]:
    """How many annotations are crowds, and what becomes of them."""
    every = [one for file in content for some in file.instances.values() for one in some]
    crowds = sum(bool(one.get("iscrowd")) for one in every)
    if not crowds:
        return ()
    if painted:
        return (f"all {crowds} annotations are crowds (iscrowd: 1), as brushes export: they are drawn like instances",)
    cure = "export them as instances (iscrowd: 0) if they are objects"
    return (f"{crowds} of {len(every)} annotations are crowds (iscrowd: 1), and their pixels ignored; {cure}",)


@dataclass(frozen=True)
class COCOLabels:
    """Makes the label of an image of its annotations: draws instances, looks panoptic segments up.

    painted: crowds are instances like others.
    """

    root: Path
    categories: Categories
    annotated: Mapping[tuple[Path, str], Annotated]
    painted: bool = False

    def stored(self, path: Path, name: str) -> np.ndarray:
        """Class indices uint8 [H, W] of the image `name` of an annotation file. Raises `ValueError` that names both."""
        found = self.annotated[path, name]
        try:
            if path.stem.startswith("panoptic"):
                return self._panoptic(path, found)
            background = self.categories.classes.index("background")
            return draw_instances(found.size, found.instances, self.categories.index, background, self.painted)
        except ValueError as error:
            raise ValueError(f"{path}: {name}: {error}") from None

    def _panoptic(self, path: Path, annotated: Annotated) -> np.ndarray:
        if annotated.panoptic is None:
            return np.full(annotated.size, IGNORE, np.uint8)
        places = [folder / path.stem / annotated.panoptic["file_name"] for folder in (path.parent, self.root)]
        file = next((place for place in places if place.is_file()), places[0])
        colours = images.read_mask(file)
        if colours.ndim != 3:
            raise ValueError(f"{file}: a panoptic label image holds segment ids as RGB colours, this one is grey")
        segments = colours.astype(np.int64) @ np.array([1, 256, 65536])  # [H, W, 3] -> [H, W]
        label = np.full(segments.shape, IGNORE, np.uint8)
        listed = annotated.panoptic["segments_info"]
        for segment in listed:
            label[segments == segment["id"]] = _class_of(segment["category_id"], self.categories.index)
        known = np.isin(segments, [0, *(segment["id"] for segment in listed)])
        if not known.all():
            lost = int(segments[~known][0])
            raise ValueError(f"{file}: segment {lost} is not in {path.name}; do they belong together?")
        return label


def _class_of(category: int, index: Mapping[int, int]) -> int:
    if category not in index:
        raise ValueError(f"category {category} is not among the categories")
    return index[category]


def draw_instances(
    size: tuple[int, int], annotations: Sequence[Instance], index: Mapping[int, int], background: int, painted: bool
) -> np.ndarray:
    """Class indices uint8 [H, W]: crowds (as ignore) first, then instances from the largest to the smallest.

    painted: crowds are instances too.
    """
    label = np.full(size, background, np.uint8)
    drawn: list[tuple[int, int, tuple[slice, slice], np.ndarray]] = []
    for annotation in annotations:
        mask = mask_of(annotation["segmentation"], size)
        if annotation.get("iscrowd") and not painted:
            label[mask] = IGNORE
            continue
        value, box = _class_of(annotation["category_id"], index), _box(mask)
        drawn.append((int(mask.sum()), value, box, mask[box].copy()))  # not all of the image for each instance
    for _, value, box, mask in sorted(drawn, key=lambda item: -item[0]):
        label[box][mask] = value
    return label


def _box(mask: np.ndarray) -> tuple[slice, slice]:
    """The smallest part of bool [H, W] that holds all that is true."""
    ranges = [np.flatnonzero(mask.any(axis)) for axis in (1, 0)]
    rows, columns = (slice(0, 0) if not len(one) else slice(int(one[0]), int(one[-1]) + 1) for one in ranges)
    return rows, columns


def mask_of(segmentation: list[Polygon] | run_lengths.RunLengths, size: tuple[int, int]) -> np.ndarray:
    """Polygons [[x0, y0, x1, y1, ...], ...] or a run-length mask -> bool [H, W]."""
    if isinstance(segmentation, dict):
        return run_lengths.decode(segmentation, size)
    mask = np.zeros(size, bool)
    for polygon in segmentation:
        if polygon:
            mask |= fill_rings([np.asarray(polygon, float).reshape(-1, 2)], size)
    return mask
