"""What COCO's annotation files hold, checked before anything is used (cocodataset.org, format)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NotRequired

from annotated_types import Len
from pydantic import AfterValidator, FailFast
from typing_extensions import TypedDict

from nonlocalseg.data.layouts import Coordinate, read_json
from nonlocalseg.data.run_lengths import RunLengths
from nonlocalseg.images import check_size
from nonlocalseg.labels import Colour, check_class_names, default_palette


def _points(given: list[float]) -> list[float]:
    if len(given) % 2:
        raise ValueError("a polygon is x and y in turn")
    return given


Polygon = Annotated[list[Coordinate], AfterValidator(_points)]
"""x0, y0, x1, y1, ..."""
Name = Annotated[str, Len(1, 1000)]


class COCOImage(TypedDict):
    id: int
    file_name: Name
    height: int
    width: int


class Category(TypedDict):
    id: int
    name: Name
    color: NotRequired[Colour]


class Instance(TypedDict):
    image_id: int
    category_id: int
    segmentation: list[Polygon] | RunLengths
    iscrowd: NotRequired[bool]


class Segment(TypedDict):
    id: int
    category_id: int


class Panoptic(TypedDict):
    image_id: int
    file_name: Name
    segments_info: list[Segment]


class _Listed(TypedDict):
    images: Annotated[list[COCOImage], FailFast()]
    categories: Annotated[list[Category], FailFast()]


class _Instances(_Listed):
    annotations: Annotated[list[Instance], FailFast()]


class _Panoptic(_Listed):
    annotations: Annotated[list[Panoptic], FailFast()]


@dataclass(frozen=True)
class Categories:
    """The classes of an annotation file; `index`: category id -> class."""

    classes: tuple[str, ...]
    index: Mapping[int, int]
    palette: tuple[Colour, ...]


@dataclass(frozen=True)
class AnnotationFile:
    """A file's images, its categories, and for each image, by its id, its instances, or its panoptic label."""

    images: list[COCOImage]
    categories: Categories
    instances: Mapping[int, list[Instance]]
    panoptic: Mapping[int, Panoptic]


def read_annotations(path: Path) -> AnnotationFile:
    """`instances_*.json` or `panoptic_*.json`. Raises `ValueError` that names the file and what is wrong in it."""
    what = "a COCO annotation file"
    instances: dict[int, list[Instance]] = {}
    panoptic: dict[int, Panoptic] = {}
    if panoptic_of(path):
        content = read_json(path, _Panoptic, what)
        panoptic = {annotation["image_id"]: annotation for annotation in content["annotations"]}
    else:
        content = read_json(path, _Instances, what)
        for annotation in content["annotations"]:
            instances.setdefault(annotation["image_id"], []).append(annotation)
    try:
        for item in content["images"]:
            check_size(item["width"], item["height"])
        categories = _categories(content["categories"], drawn=not panoptic_of(path))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return AnnotationFile(content["images"], categories, instances, panoptic)


def panoptic_of(path: Path) -> bool:
    """Whether a file holds panoptic labels, by its name."""
    return path.stem.startswith("panoptic")


def _categories(listed: list[Category], drawn: bool) -> Categories:
    """The categories in the order of their ids, after `background` where instances are drawn upon it."""
    listed = sorted(listed, key=lambda item: item["id"])
    classes = [item["name"] for item in listed]
    check_class_names(classes)
    first = 1 if drawn and "background" not in classes else 0
    index = {item["id"]: first + place for place, item in enumerate(listed)}
    classes = ["background", *classes] if first else classes
    if len(set(classes)) < len(classes) or len(index) < len(listed) or len(classes) > 254:
        raise ValueError(f"has {len(classes)} categories, of which some share a name or an id, or more than 254")
    coloured = [item["color"] for item in listed if "color" in item]
    clear = len(coloured) == len(listed) == len(set(coloured))
    clear = clear and all(0 <= part <= 255 for colour in coloured for part in colour)
    palette = coloured if clear else default_palette(len(listed))
    return Categories(tuple(classes), index, (*([(0, 0, 0)] if first else []), *palette))
