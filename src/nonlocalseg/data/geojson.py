"""Labels as GeoJSON in pixels (RFC 7946), one file for each image: read, and written along the edges of the pixels."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NotRequired

import numpy as np
from pydantic import FailFast
from typing_extensions import TypedDict

from nonlocalseg.data.coco_format import Name
from nonlocalseg.data.layouts import read_json
from nonlocalseg.data.outlines import Ring, fill_rings, trace_outlines
from nonlocalseg.data.shapes import Shape, Sheet, SheetFile, regions_of
from nonlocalseg.files import write_text
from nonlocalseg.images import check_size
from nonlocalseg.labels import Colour

FOLDER, SUFFIX = "geojson", ".geojson"
"""NAME.geojson in this folder belongs to the image NAME."""


class _Geometry(TypedDict):
    type: str
    coordinates: NotRequired[Any]


class _Feature(TypedDict):
    geometry: _Geometry | None
    properties: dict[str, Any] | None


class _Class(TypedDict):
    name: Name
    color: Colour


class _Collection(TypedDict):
    features: Annotated[list[_Feature], FailFast()]
    image: NotRequired[Name]
    width: int
    height: int
    classes: NotRequired[list[_Class]]


_FORMS = ("Polygon", "MultiPolygon")


def geojson_files(root: Path) -> list[Path]:
    """The GeoJSON files of a folder's images."""
    return sorted((root / FOLDER).rglob(f"*{SUFFIX}"))


def read_geojson(path: Path) -> SheetFile:
    """The polygons of one image, in pixels from its upper left corner; the class stands in the property `class`.

    Beside its features the collection holds `width` and `height`, and, as we write it, `image` and `classes`. Raises
    `ValueError` that names the file and what is wrong in it.
    """
    content = read_json(path, _Collection, "GeoJSON of an image, with its width and height")
    shapes: list[Shape] = []
    left = 0
    try:
        check_size(content["width"], content["height"])
        for feature in content["features"]:
            geometry, label = feature["geometry"], (feature["properties"] or {}).get("class")
            if geometry is None or geometry["type"] not in _FORMS:
                left += 1
                continue
            if not isinstance(label, str):
                raise ValueError("a feature has no class among its properties")
            shapes.append(Shape(label, partial(_fill, _rings(geometry))))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    known = {one["name"]: one["color"] for one in content.get("classes", [])}
    labels = list(dict.fromkeys([*known, *(shape.label for shape in shapes)]))
    name = content.get("image", path.name.removesuffix(SUFFIX))
    return SheetFile(path, labels, known, [Sheet(name, (content["height"], content["width"]), shapes)], left)


def _rings(geometry: _Geometry) -> list[np.ndarray]:
    """All rings, outlines and holes alike: with holes inside outlines, the pixels inside an odd number are the region."""
    given = geometry.get("coordinates")
    polygons: list[Any] = [given] if geometry["type"] == "Polygon" else given or []
    try:
        rings = [np.array(ring, float)[:, :2] for polygon in polygons for ring in polygon]
    except (ValueError, TypeError, IndexError):
        raise ValueError("the coordinates of a polygon are rings of [x, y]") from None
    if any(ring.shape[1] != 2 or not (abs(ring) < 1e6).all() for ring in rings):
        raise ValueError("the coordinates of a polygon are no pixels of an image")
    return rings


def _fill(rings: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    return fill_rings(rings, size)


def collection_of(name: str, mask: np.ndarray, classes: Sequence[str], palette: Sequence[Colour]) -> dict[str, object]:
    """The class indices [H, W] of the image `name`: one MultiPolygon for each class that occurs."""
    known = [{"name": name, "color": list(colour)} for name, colour in zip(classes, palette, strict=True)]
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "MultiPolygon", "coordinates": _coordinates(region.mask, region.box)},
            "properties": {"class": classes[region.index], "index": region.index, "pixels": int(region.mask.sum())},
        }
        for region in regions_of(mask)
    ]
    height, width = mask.shape
    about = {"image": name, "width": width, "height": height, "classes": known}
    return {"type": "FeatureCollection", **about, "features": features}


def _coordinates(mask: np.ndarray, box: tuple[int, int, int, int]) -> list[list[Ring]]:
    """Rings that end where they begin."""
    left, top = box[:2]
    return [
        [[(x + left, y + top) for x, y in (*ring, ring[0])] for ring in polygon] for polygon in trace_outlines(mask)
    ]


@contextmanager
def writing_geojson(
    folder: Path, classes: Sequence[str], palette: Sequence[Colour]
) -> Iterator[Callable[[int, str, np.ndarray], None]]:
    """A function (number, name, class indices [H, W]) that writes an image's file."""

    def add(_number: int, name: str, mask: np.ndarray) -> None:
        content = collection_of(name, mask, classes, palette)
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        write_text(folder / FOLDER / f"{name}{SUFFIX}", text + "\n")

    yield add
