"""The classes of a GeoTIFF as a GeoTIFF: at the same place, in blocks of the same size, in the classes' colours."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nonlocalseg.inference.predictor import MAKER
from nonlocalseg.inference.rasters import CACHE, RasterReader, opened
from nonlocalseg.inference.windows import Window
from nonlocalseg.labels import IGNORE, Colour
from nonlocalseg.silence import quietly

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

LOSSLESS = ("deflate", "lzw", "packbits", "zstd", "lzma")
"""Compressions that class numbers survive; what is stored with another becomes deflate."""
ROWS = 256  # that are written at once, at least


@dataclass(frozen=True)
class Legend:
    """What class numbers mean. about: what is said of the model, as metadata."""

    classes: Sequence[str]
    palette: Sequence[Colour]
    about: Mapping[str, str]


@dataclass(frozen=True)
class Covered:
    """pixels: of each class. left_out: pixels without data. square_metres: of one pixel, None where that is not known."""

    pixels: list[int]
    left_out: int
    square_metres: float | None


def no_data(num_classes: int) -> int:
    """What stands where there is no data: 255, or the number above the last class where that is one."""
    return IGNORE if num_classes <= IGNORE else num_classes


def write_map(reader: RasterReader, classes: Path, path: Path, num_classes: int, legend: Legend) -> Covered:
    """Write the class numbers in a .npy file [H, W] as a GeoTIFF, and count them. Raises OSError where it cannot be
    written whole."""
    empty = no_data(num_classes)
    dtype = np.uint8 if empty <= IGNORE else np.uint16
    counts = np.zeros(empty + 1, np.int64)
    with opened(reader.path) as source:
        profile, high = _profile(source, empty, dtype), int(source.block_shapes[0][0])
        metres = _square_metres(source)
        tags = {"AREA_OR_POINT": source.tags().get("AREA_OR_POINT", "Area"), "TIFFTAG_SOFTWARE": MAKER}
        tags |= {f"CLASS_{number}": name for number, name in enumerate(legend.classes)}
        tags |= {"NO_DATA": f"{empty}: no data in the image, or masked there", **legend.about}
        rpcs = source.rpcs
    _write(path, profile, tags, rpcs, legend, _counted(_strips(reader, classes, high, empty, dtype), counts))
    if not np.array_equal(counts, _stored(path, len(counts), high)):
        raise OSError(errno.EIO, "what was written cannot be read again", str(path))
    return Covered(counts[:num_classes].tolist(), int(counts[empty]), metres)


def _counted(strips: Iterator[tuple[Window, np.ndarray]], counts: np.ndarray) -> Iterator[tuple[Window, np.ndarray]]:
    for window, part in strips:
        counts += np.bincount(part.ravel(), minlength=len(counts))
        yield window, part


def _stored(path: Path, length: int, high: int) -> np.ndarray:
    """How often each number stands in a file, -1 where it cannot be read: GDAL does not tell of every full disk."""
    counts, step = np.zeros(length, np.int64), -(-ROWS // high) * high
    try:
        with opened(path) as answer:
            for top in range(0, answer.height, step):
                part = answer.read(1, window=((top, min(top + step, answer.height)), (0, answer.width)))
                counts += np.bincount(part.ravel(), minlength=length)
    except ValueError:
        return np.full(length, -1)
    return counts


def _strips(
    reader: RasterReader, classes: Path, high: int, empty: int, dtype: type[np.generic]
) -> Iterator[tuple[Window, np.ndarray]]:
    """Rows of whole blocks, with the value for no data."""
    height, width = reader.size
    step = -(-ROWS // high) * high
    for top in range(0, height, step):
        window = Window(top, min(top + step, height), 0, width)
        part = np.array(np.load(classes, mmap_mode="r")[window.top : window.bottom], dtype)
        valid = reader.holds_data(window)
        if valid is not None:
            part[~valid] = empty
        yield window, part


def _profile(source: DatasetReader, empty: int, dtype: type[np.generic]) -> dict[str, Any]:
    """How the answer is stored: as the image, but for one band, without loss."""
    points, points_crs = source.gcps
    compression = source.compression.name.lower() if source.compression else ""
    found: dict[str, Any] = {
        "driver": "GTiff",
        "width": source.width,
        "height": source.height,
        "count": 1,
        "dtype": np.dtype(dtype).name,
        "nodata": empty,
        "BIGTIFF": "IF_SAFER",
        "tiled": bool(source.profile.get("tiled")),
        "blockysize": source.block_shapes[0][0],
    }
    if found["tiled"]:
        found["blockxsize"] = source.block_shapes[0][1]
    if compression not in ("", "none", "uncompressed"):
        found["compress"] = compression if compression in LOSSLESS else "deflate"
    if points:
        return {**found, "gcps": points, "crs": points_crs}
    return {**found, "crs": source.crs, "transform": source.transform}


def _write(
    path: Path,
    profile: dict[str, Any],
    tags: Mapping[str, str],
    rpcs: object,
    legend: Legend,
    strips: Iterator[tuple[Window, np.ndarray]],
) -> None:
    import rasterio
    from rasterio.errors import RasterioError

    try:
        with quietly(), rasterio.Env(GDAL_CACHEMAX=CACHE), rasterio.open(path, "w", **profile) as answer:
            if rpcs is not None:
                answer.rpcs = rpcs
            answer.update_tags(**tags)
            if len(legend.palette) <= IGNORE:
                answer.write_colormap(1, {number: (*colour, 255) for number, colour in enumerate(legend.palette)})
            for window, part in strips:
                answer.write(part, 1, window=((window.top, window.bottom), (window.left, window.right)))
    except RasterioError as error:
        full = shutil.disk_usage(path.parent).free < 2**20
        number = errno.ENOSPC if full else errno.EIO
        raise OSError(number, os.strerror(number) if full else str(error), str(path)) from None


def _square_metres(source: DatasetReader) -> float | None:
    """Of one pixel, in the plane of the projection; None for degrees, and for Mercator, which keeps no area."""
    if source.crs is None or not source.crs.is_projected or source.crs.to_dict().get("proj") in ("merc", "webmerc"):
        return None
    if source.gcps[0] and source.transform.is_identity:
        return None
    return abs(source.transform.determinant) * source.crs.linear_units_factor[1] ** 2
