"""The classes of a GeoTIFF as polygons in map coordinates: GeoJSON, one feature for each area of one class."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nonlocalseg.data.geojson import FOLDER, SUFFIX
from nonlocalseg.files import writing
from nonlocalseg.inference.large import MAPS
from nonlocalseg.inference.predictor import KINDS
from nonlocalseg.inference.rasters import opened
from nonlocalseg.labels import Colour

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

GEOGRAPHIC = "EPSG:4326"
"""The coordinates of GeoJSON without a `crs`, longitude and latitude; and of those whose own have no number of EPSG."""


def annotate_maps(
    folder: Path, formats: Sequence[str], names: Iterable[str], classes: Sequence[str], palette: Sequence[Colour]
) -> Iterator[str]:
    """Write geojson/NAME.geojson of each of the `names` of which there is a index/NAME.tif, where `formats` ask for it;
    what is to be said of them."""
    for name in names:
        source = folder / KINDS[0] / f"{name}{MAPS}"
        if not source.is_file():
            continue
        if others := [each for each in formats if each != FOLDER]:
            yield f"{name}: of a GeoTIFF there is geojson alone, no {', no '.join(others)}"
        if FOLDER in formats:
            yield from write_polygons(source, folder / FOLDER / f"{name}{SUFFIX}", name, classes, palette)


def write_polygons(
    source: Path, path: Path, name: str, classes: Sequence[str], palette: Sequence[Colour]
) -> Iterator[str]:
    """The class numbers in a GeoTIFF as GeoJSON, in the coordinates of its map, which `crs` names as far as EPSG has a
    number for them, else in longitude and latitude. Nothing stands where there is no data."""
    import rasterio
    from rasterio.features import shapes
    from rasterio.warp import transform_geom

    with opened(source) as dataset:
        if dataset.transform.is_identity and (dataset.gcps[0] or dataset.rpcs is not None):
            yield f"{name}: placed by control points or RPCs alone, so no geojson: make a map of it first (gdalwarp)"
            return
        member, moved = _coordinates(dataset)
        known = [{"name": one, "color": list(colour)} for one, colour in zip(classes, palette, strict=False)]
        head = {"type": "FeatureCollection", **member, "image": name, "classes": known}
        with writing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.write(json.dumps(head, ensure_ascii=False)[:-1] + ', "features": [')
            comma = "\n"
            for shape, number in shapes(rasterio.band(dataset, 1), connectivity=4, transform=dataset.transform):
                if number == dataset.nodata:
                    continue
                shape = transform_geom(dataset.crs, GEOGRAPHIC, shape) if moved else shape
                shape["coordinates"] = [_turned(ring, not place) for place, ring in enumerate(shape["coordinates"])]
                index = int(number)
                about = {"class": classes[index] if index < len(classes) else str(index), "index": index}
                feature = {"type": "Feature", "geometry": shape, "properties": about}
                file.write(comma + json.dumps(feature, ensure_ascii=False, separators=(",", ":")))
                comma = ",\n"
            file.write("\n]}\n")


def _coordinates(dataset: DatasetReader) -> tuple[dict[str, Any], bool]:
    """What names the coordinates, and whether they are to become longitude and latitude."""
    if dataset.crs is None:
        return {}, False
    authority, number = dataset.crs.to_authority() or ("", "")
    if not number:
        return {}, True
    urn = f"urn:ogc:def:crs:{authority}::{number}"
    return (
        {} if f"{authority}:{number}" == GEOGRAPHIC else {"crs": {"type": "name", "properties": {"name": urn}}}
    ), False


def _turned(ring: Sequence[Sequence[float]], outline: bool) -> list[list[float]]:
    """Outlines counterclockwise, holes clockwise, as RFC 7946 wants it."""
    pairs = zip(ring, [*ring[1:], ring[0]], strict=True)
    area = sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in pairs)
    points = [list(point) for point in ring]
    return points if (area > 0) == outline else points[::-1]
