"""GeoTIFFs, and TIFFs too large for memory, read in windows through rasterio (the extra geo)."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nonlocalseg.extras import needing
from nonlocalseg.images import MOST_PIXELS, tiff_tags
from nonlocalseg.inference.bands import Bands
from nonlocalseg.inference.windows import Window

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

SUFFIXES = (".tif", ".tiff")
CACHE = 128
"""Megabytes of decoded blocks that GDAL may keep; by itself it takes a twentieth of the machine's memory."""
LARGEST_BLOCK = 2**28
"""Bytes of what has to be decoded at once."""
_WIDTH, _HEIGHT = 256, 257  # TIFF tags
_GEOREFERENCE = {33550, 33922, 34264, 34735, 50844}  # scale, tie points, transform, keys of the CRS, RPCs
_NODATA = 42113
logging.getLogger("rasterio").addHandler(logging.NullHandler())  # its errors are raised as well


def is_raster(path: Path, bands: Bands | None = None) -> bool:
    """Whether a file is read here and not as a photograph: a TIFF with a georeference or a value for no data, one too
    large to be decoded whole, or any for which `bands` are chosen. Told from its header, without rasterio."""
    if path.suffix.lower() not in SUFFIXES:
        return False
    tags = tiff_tags(path)
    if not tags:
        return False
    beside = any(path.with_suffix(suffix).is_file() for suffix in (".tfw", ".tifw", ".wld"))
    width, height = (side if isinstance(side := tags.get(tag), int) else 0 for tag in (_WIDTH, _HEIGHT))
    known = beside or bool(tags.keys() & {*_GEOREFERENCE, _NODATA})
    return known or width * height > MOST_PIXELS or bands not in (None, Bands())


@contextmanager
def opened(path: Path) -> Iterator[DatasetReader]:
    """The dataset in a TIFF, whatever else GDAL could take the file for. Raises ValueError for what is broken, also
    while the block runs, or where rasterio is missing."""
    with needing("geo", f"{path}: reading GeoTIFFs"):
        import rasterio
        from rasterio.errors import NotGeoreferencedWarning, RasterioError
    try:
        with rasterio.Env(GDAL_CACHEMAX=CACHE), warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path.absolute(), driver="GTiff", sharing=False) as dataset:
                yield dataset
    except RasterioError as error:
        reason = " ".join(str(error).split()) if "See previous" not in str(error) else "it is damaged or cut off"
        raise ValueError(f"{path}: {reason.removeprefix(f'{path.absolute()}: ')}; replace or remove it") from None


class RasterReader:
    """A TIFF of which only windows are read: uint8 [3, h, w], and which pixels hold data.

    Raises ValueError for a file that is broken, stored in too large pieces, or whose bands are no picture.
    """

    def __init__(self, path: str | Path, bands: Bands | None = None) -> None:
        self.path = Path(path)
        self.chosen = bands or Bands()
        if not self.path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
        with opened(self.path) as dataset:
            self.size: tuple[int, int] = (dataset.height, dataset.width)
            self.note = ""
            self._check_blocks(dataset)
            self._indices = self._seen(dataset)
            self._colours = self._palette(dataset)
            self._check_values(dataset)
            flags = [dataset.mask_flag_enums[index - 1] for index in self._indices]
            self._has_mask = any([flag.name for flag in each] != ["all_valid"] for each in flags)

    def read(self, window: Window) -> Tensor:
        """uint8 [3, h, w]."""
        found = self._read(window)
        if self._colours is not None:
            found = np.moveaxis(self._colours[found[0], :3], -1, 0)
        elif self.chosen.value_range is not None:
            low, high = self.chosen.value_range
            scaled = (found.astype(np.float64) - low) * (255 / (high - low))
            found = np.nan_to_num(scaled.clip(0, 255), nan=0).round().astype(np.uint8)
        found = np.repeat(found, 3, axis=0) if len(found) == 1 else found
        return torch.from_numpy(np.ascontiguousarray(found))

    def holds_data(self, window: Window) -> np.ndarray | None:
        """Bool [h, w]: not what the file's mask or transparency leaves out, nor where all bands that are seen have its
        value for no data. None where all do."""
        found: np.ndarray | None = None
        if self._has_mask:
            with opened(self.path) as dataset:
                found = dataset.read_masks(self._indices, window=_slices(window)).any(0)
        if self._colours is not None and not self._colours[:, 3].all():
            opaque = self._colours[self._read(window)[0], 3] > 0
            found = opaque if found is None else found & opaque
        return found

    def _read(self, window: Window) -> np.ndarray:
        """[bands, h, w] as they are stored."""
        with opened(self.path) as dataset:
            return dataset.read(self._indices, window=_slices(window))

    def _check_blocks(self, dataset: DatasetReader) -> None:
        height, width = dataset.block_shapes[0]
        together = dataset.count if str(dataset.interleaving or "").lower().endswith("pixel") else 1
        if height * width * together * np.dtype(dataset.dtypes[0]).itemsize > LARGEST_BLOCK:
            raise ValueError(
                f"{self.path}: stored in pieces of {width}x{height} pixels, which are read whole; store it in tiles: "
                "gdal_translate -co TILED=YES"
            )

    def _seen(self, dataset: DatasetReader) -> list[int]:
        """The bands that are seen, from 1 up: three, or a single one."""
        names = [one.name for one in dataset.colorinterp]
        if self.chosen.bands is not None:
            if max(self.chosen.bands) > dataset.count:
                raise ValueError(f"{self.path}: --bands: {max(self.chosen.bands)}, but it has {dataset.count}")
            return list(self.chosen.bands)
        colours = [index for index, name in enumerate(names, start=1) if name != "alpha"]
        if "cyan" in names or len(colours) not in (1, *range(3, 2**16)):
            what = "CMYK" if "cyan" in names else f"{len(colours)} bands"
            raise ValueError(f"{self.path}: {what}; say which three are red, green and blue: --bands R G B")
        named = [names.index(name) + 1 for name in ("red", "green", "blue") if names.count(name) == 1]
        seen = named if len(named) == 3 else colours[: 1 if len(colours) == 1 else 3]
        if len(colours) > 3:
            self.note = f"{len(colours)} bands, of which {' '.join(map(str, seen))} are seen (--bands chooses others)"
        return seen

    def _palette(self, dataset: DatasetReader) -> np.ndarray | None:
        """uint8 [values, 4] of a file whose only band holds indices of colours."""
        if len(self._indices) > 1 or dataset.colorinterp[self._indices[0] - 1].name != "palette":
            return None
        table = np.zeros((256 if dataset.dtypes[0] == "uint8" else 65536, 4), np.uint8)
        for index, colour in dataset.colormap(self._indices[0]).items():
            table[index] = colour
        return table

    def _check_values(self, dataset: DatasetReader) -> None:
        kind = np.dtype(dataset.dtypes[self._indices[0] - 1])
        if kind.kind == "c" or (self._colours is not None and kind.kind != "u"):
            raise ValueError(f"{self.path}: {kind} is no picture; export 8 or 16 bits")
        if kind != np.uint8 and self._colours is None and self.chosen.value_range is None:
            raise ValueError(
                f"{self.path}: {kind} values; say which of them are black and white, such as --value-range 0 10000"
            )


def _slices(window: Window) -> tuple[tuple[int, int], tuple[int, int]]:
    """Rows and columns as rasterio takes them."""
    return (window.top, window.bottom), (window.left, window.right)
