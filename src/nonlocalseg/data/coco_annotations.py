"""COCO's annotations as class images: `instances_*.json` drawn, `panoptic_*.json` looked up (cocodataset.org, format)."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nonlocalseg import images
from nonlocalseg.data import run_lengths
from nonlocalseg.data.dataset import Discovery, Labels
from nonlocalseg.data.pairing import Pair
from nonlocalseg.labels import IGNORE, Colour, default_palette, same

Annotated = tuple[tuple[int, int], list[dict[str, Any]]]
"""Height and width of an image, and its annotations."""
_SPLITS = ("train", "val", "test")


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
    instance on them are ignored. With panoptic labels, what no segment covers is ignored.
    """

    root: Path
    files: Mapping[str, Path]

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(part for part in _SPLITS if part in map(split_of, self.files))

    def discover(self, split: str | None) -> Discovery:
        first = next((name for name in self.files if split_of(name) == "train"), next(iter(self.files)))
        chosen = [name for name in self.files if split in (None, split_of(name))]
        content = {name: _load(self.files[name]) for name in dict.fromkeys([first, *chosen])}
        categories = _categories(self.files[first], content[first])
        pairs: list[Pair] = []
        unmatched: list[Path] = []
        annotated: dict[tuple[Path, str], Annotated] = {}
        for name in chosen:
            path = self.files[name]
            found = _categories(path, content[name])
            if (found.classes, found.index) != (categories.classes, categories.index):
                raise ValueError(f"{path}: has other categories than the annotations of train; export them together")
            for stem, picture, drawn in self._images(name, content[name]):
                if picture.is_file():
                    pairs.append(Pair(stem, picture, path))
                    annotated[path, stem] = drawn
                else:
                    unmatched.append(picture)
        labels = Labels(same(len(categories.classes)), COCOLabels(self.root, categories, annotated).stored)
        return Discovery(tuple(pairs), tuple(unmatched), categories.classes, categories.palette, labels)

    def _images(self, name: str, content: dict[str, Any]) -> Iterator[tuple[str, Path, Annotated]]:
        """Every image of one file: its name in the data set, where it should lie, and its annotations."""
        annotations = defaultdict(list)
        for annotation in content["annotations"]:
            annotations[annotation["image_id"]].append(annotation)
        for item in sorted(content["images"], key=lambda item: item["file_name"]):
            places = [self.root / place / item["file_name"] for place in (f"images/{name}", name, "images", ".")]
            picture = next((place for place in places if place.is_file()), places[0])
            stem = Path(item["file_name"]).with_suffix("").as_posix().replace("/", "__")
            yield stem, picture, ((item["height"], item["width"]), annotations[item["id"]])


@dataclass(frozen=True)
class Categories:
    """The classes of an annotation file; `index`: category id -> class."""

    classes: tuple[str, ...]
    index: Mapping[int, int]
    palette: tuple[Colour, ...]


@dataclass(frozen=True)
class COCOLabels:
    """Makes the label of an image of its annotations: draws instances, looks panoptic segments up."""

    root: Path
    categories: Categories
    annotated: Mapping[tuple[Path, str], Annotated]

    def stored(self, path: Path, name: str) -> np.ndarray:
        """Class indices uint8 [H, W] of the image `name` of an annotation file. Raises `ValueError` that names both."""
        size, annotations = self.annotated[path, name]
        try:
            if path.stem.startswith("panoptic"):
                return self._panoptic(path, size, annotations)
            return draw_instances(size, annotations, self.categories.index, self.categories.classes.index("background"))
        except KeyError as error:
            raise ValueError(f"{path}: {name}: no entry {error}; export it again") from None
        except ValueError as error:
            raise ValueError(f"{path}: {name}: {error}") from None

    def _panoptic(self, path: Path, size: tuple[int, int], annotations: Sequence[dict[str, Any]]) -> np.ndarray:
        if not annotations:
            return np.full(size, IGNORE, np.uint8)
        places = [folder / path.stem / annotations[0]["file_name"] for folder in (path.parent, self.root)]
        file = next((place for place in places if place.is_file()), places[0])
        colours = images.read_mask(file)
        if colours.ndim != 3:
            raise ValueError(f"{file}: a panoptic label image holds segment ids as RGB colours, this one is grey")
        segments = colours.astype(np.int64) @ np.array([1, 256, 65536])  # [H, W, 3] -> [H, W]
        label = np.full(segments.shape, IGNORE, np.uint8)
        for segment in annotations[0]["segments_info"]:
            label[segments == segment["id"]] = self.categories.index[segment["category_id"]]
        known = np.isin(segments, [0, *(segment["id"] for segment in annotations[0]["segments_info"])])
        if not known.all():
            lost = int(segments[~known][0])
            raise ValueError(f"{file}: segment {lost} is not in {path.name}; do they belong together?")
        return label


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        for entry in ("images", "annotations", "categories"):
            content[entry][0:0]  # a list
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a COCO annotation file ({error!r}); export it again") from None
    return content


def _categories(path: Path, content: dict[str, Any]) -> Categories:
    try:
        listed = sorted(content["categories"], key=lambda item: item["id"])
        classes = [str(item["name"]) for item in listed]
        first = 1 if path.stem.startswith("instances") and "background" not in classes else 0
        index = {item["id"]: first + place for place, item in enumerate(listed)}
        drawn = [(red, green, blue) for red, green, blue in (item["color"] for item in listed if "color" in item)]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: a category cannot be read ({error!r}); export it again") from None
    classes = ["background", *classes] if first else classes
    if len(set(classes)) < len(classes) or len(index) + first > 254:
        raise ValueError(f"{path}: has {len(classes)} categories, of which some share a name, or more than 254")
    clear = len(drawn) == len(listed) == len(set(drawn))
    palette = drawn if clear else default_palette(len(listed))
    return Categories(tuple(classes), index, (*([(0, 0, 0)] if first else []), *palette))


def draw_instances(
    size: tuple[int, int], annotations: Sequence[dict[str, Any]], index: Mapping[int, int], background: int
) -> np.ndarray:
    """Class indices uint8 [H, W]: crowds (as ignore) first, then instances from the largest to the smallest."""
    label = np.full(size, background, np.uint8)
    drawn = []
    for annotation in annotations:
        mask = mask_of(annotation["segmentation"], size)
        if annotation.get("iscrowd"):
            label[mask] = IGNORE
            continue
        if annotation["category_id"] not in index:
            raise ValueError(f"category {annotation['category_id']} is not among the categories")
        drawn.append((int(mask.sum()), index[annotation["category_id"]], mask))
    for _, value, mask in sorted(drawn, key=lambda item: -item[0]):
        label[mask] = value
    return label


def mask_of(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """Polygons [[x0, y0, x1, y1, ...], ...] or a run-length mask -> bool [H, W]."""
    if isinstance(segmentation, dict):
        mask = run_lengths.decode(segmentation)
        if mask.shape != tuple(size):
            raise ValueError(f"a mask is {mask.shape}, its image {tuple(size)} (height, width)")
        return mask
    mask = np.zeros(size, bool)
    for polygon in segmentation:
        mask |= fill_polygon(np.asarray(polygon, float).reshape(-1, 2), size)
    return mask


def fill_polygon(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixels whose centre lies inside the polygon [N, 2] of (x, y), where (0, 0) is the image's corner: bool [H, W]."""
    height, width = size
    mask = np.zeros(size, bool)
    start, end = points, np.roll(points, -1, axis=0)
    for row in range(max(0, int(points[:, 1].min() - 1)), min(height, int(points[:, 1].max() + 1))):
        y = row + 0.5
        crossing = (start[:, 1] <= y) != (end[:, 1] <= y)
        a, b = start[crossing], end[crossing]
        xs = np.sort(a[:, 0] + (y - a[:, 1]) / (b[:, 1] - a[:, 1]) * (b[:, 0] - a[:, 0]))
        for left, right in zip(xs[::2], xs[1::2], strict=True):
            mask[row, max(0, int(np.ceil(left - 0.5))) : min(width, max(0, int(np.ceil(right - 0.5))))] = True
    return mask
