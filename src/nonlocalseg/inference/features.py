"""The backbone's maps of a large image on disk, so that each tile passes through the backbone once."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nonlocalseg.blocks.tiles import Span, Tile
from nonlocalseg.inference.readers import allocate

SHARE = 0.5  # of the free space that maps may take
_STORED = {torch.float32: np.float32, torch.float64: np.float64}


class FeatureStore:
    """Maps [1, C, H, W] by stage in temporary files, written and read in tiles; gone with the object."""

    def __init__(self, shapes: Mapping[int, tuple[int, int, int]], dtype: torch.dtype) -> None:
        """shapes: channels, height, width of each stage's whole map."""
        self._folder = Path(tempfile.mkdtemp(prefix="nonlocalseg-"))
        weakref.finalize(self, shutil.rmtree, self._folder, True)
        self._shapes, self._dtype = shapes, _STORED[dtype]
        for stage, (channels, height, width) in shapes.items():
            # A cell's channels side by side, so that a row of a tile is one piece of the file.
            allocate(self._path(stage), (height, width, channels), self._dtype)

    @staticmethod
    def fits(shapes: Mapping[int, tuple[int, int, int]], dtype: torch.dtype) -> bool:
        """Whether the disk of temporary files has room for the maps, twice over."""
        needed = sum(channels * height * width for channels, height, width in shapes.values()) * dtype.itemsize
        return dtype in _STORED and needed <= SHARE * shutil.disk_usage(tempfile.gettempdir()).free

    def write(self, stage: int, tile: Tile, x: Tensor) -> None:
        """The tile's own cells."""
        self._opened(stage)[_slices(tile.core)] = tile.own(x)[0].permute(1, 2, 0).cpu().numpy()

    def read(self, stage: int, rows: Span, columns: Span) -> Tensor:
        """[1, C, h, w] of these rows and columns."""
        part = np.array(self._opened(stage)[_slices((rows, columns))])
        return torch.from_numpy(part).permute(2, 0, 1)[None]

    def _opened(self, stage: int) -> np.ndarray:
        return np.load(self._path(stage), mmap_mode="r+")  # anew: what is mapped counts as memory

    def _path(self, stage: int) -> Path:
        return self._folder / f"stage{stage}.npy"


def _slices(spans: tuple[Span, Span]) -> tuple[slice, slice]:
    (top, bottom), (left, right) = spans
    return slice(top, bottom), slice(left, right)
