"""The backbone's maps of a large image on disk, so that each tile passes through the backbone once."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nonlocalseg.blocks.tiles import Span, Tile
from nonlocalseg.inference.readers import allocate
from nonlocalseg.lock import LOCK, Lock

SHARE = 0.5  # of the free space that maps may take
PREFIX = "nonlocalseg-maps-"
_STORED = {torch.float32: np.float32, torch.float64: np.float64}
Shapes = Mapping[int, tuple[int, int, int]]
"""Channels, height and width of each stage's whole map."""


class FeatureStore:
    """Maps [1, C, H, W] by stage in files, written and read in tiles: temporary ones, gone with the object, or in a
    `folder`, where they stay."""

    def __init__(self, shapes: Shapes, dtype: torch.dtype, folder: Path | None = None) -> None:
        self._shapes, self._dtype = shapes, _STORED[dtype]
        self._lasting = folder is not None
        self._folder = temporary_folder(self) if folder is None else folder
        self._folder.mkdir(exist_ok=True)
        for stage, (channels, height, width) in shapes.items():
            if not self._path(stage).exists():
                # A cell's channels side by side, so that a row of a tile is one piece of the file.
                allocate(self._path(stage), (height, width, channels), self._dtype)

    @staticmethod
    def fits(shapes: Shapes, dtype: torch.dtype, folder: Path | None = None) -> bool:
        """Whether the disk of the folder, or of temporary files, has room for the maps, twice over."""
        needed = sum(channels * height * width for channels, height, width in shapes.values()) * dtype.itemsize
        return dtype in _STORED and needed <= SHARE * shutil.disk_usage(folder or tempfile.gettempdir()).free

    def write(self, stage: int, tile: Tile, x: Tensor) -> None:
        """The tile's own cells."""
        opened = self._opened(stage)
        opened[_slices(tile.core)] = tile.own(x)[0].permute(1, 2, 0).cpu().numpy()
        if self._lasting:
            opened.flush()

    def read(self, stage: int, rows: Span, columns: Span) -> Tensor:
        """[1, C, h, w] of these rows and columns."""
        part = np.array(self._opened(stage)[_slices((rows, columns))])
        return torch.from_numpy(part).permute(2, 0, 1)[None]

    def _opened(self, stage: int) -> np.memmap:
        return np.lib.format.open_memmap(self._path(stage), "r+")  # anew: what is mapped counts as memory

    def _path(self, stage: int) -> Path:
        return self._folder / f"stage{stage}.npy"


def temporary_folder(owner: object) -> Path:
    """A folder that goes with `owner`; those that killed processes have left go now."""
    place = Path(tempfile.gettempdir())
    for left in place.glob(f"{PREFIX}*"):
        _remove_stale(left)
    made = Path(tempfile.mkdtemp(prefix=f".{PREFIX}"))  # under its name only when it is locked
    lock = Lock(made)
    folder = made.rename(place / made.name.removeprefix("."))
    weakref.finalize(owner, _remove, folder, lock)
    return folder


def _remove(folder: Path, lock: Lock) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    lock.release(keep=True)


def _remove_stale(folder: Path) -> None:
    """Unless a process that lives holds it, or it is another user's."""
    if (folder / LOCK).is_file():
        with suppress(ValueError, OSError):
            _remove(folder, Lock(folder))


def _slices(spans: tuple[Span, Span]) -> tuple[slice, slice]:
    (top, bottom), (left, right) = spans
    return slice(top, bottom), slice(left, right)
