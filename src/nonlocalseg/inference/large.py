"""The classes of an image that need not fit into memory, from a reader into a file or canvas; what is interrupted goes on."""

from __future__ import annotations

import os
import secrets
import shutil
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nonlocalseg.files import check_folder
from nonlocalseg.images import MOST_PIXELS
from nonlocalseg.inference.bands import Bands
from nonlocalseg.inference.best import best_class
from nonlocalseg.inference.borrowed import Coarse, Model, evaluated, fingerprint, settled_view, smallest_side, tileable
from nonlocalseg.inference.engine import Runner, look
from nonlocalseg.inference.maps import Covered, Legend, write_map
from nonlocalseg.inference.memory import bounded
from nonlocalseg.inference.rasters import SUFFIXES, RasterReader
from nonlocalseg.inference.readers import ArrayReader, Canvas, FileReader, Reader, TensorReader
from nonlocalseg.inference.tiled import Tiled, tile_of, words_of
from nonlocalseg.inference.unfinished import Resumed, working_on
from nonlocalseg.inference.windows import Span, Window, grid_of
from nonlocalseg.labels import default_palette
from nonlocalseg.models.receptive import receptive_field
from nonlocalseg.progress import track
from nonlocalseg.values import from_plain, plain
from nonlocalseg.view import View
from nonlocalseg.zoo.pretrained import from_pretrained

ARRAYS, MAPS = ".npy", ".tif"
"""What files are called that classes are written to in windows."""
PANEL = 2**29
"""Bytes of the scores of a row of windows that are held at once."""


def predict_into(
    model: Model | str | Path,
    image: Reader | Tensor | np.ndarray | str | Path,
    canvas: Canvas | str | Path,
    view: View | None = None,
    **changes: object,
) -> str:
    """The best class of every pixel of an image of any size, exactly as if it were seen whole, in the memory of a tile.

    The model runs where it is. Where a file is interrupted on its way into another, the same call goes on with it.
    Raises ValueError for a model that cannot be seen in tiles, with the reason, and for an image that cannot be read.

    Args:
        model: a network of this library, or what `from_pretrained` loads.
        image: a reader, uint8 [H, W, 3], a tensor [3, H, W], a .npy file of uint8 [H, W, 3] or a GeoTIFF, read in
            windows.
        canvas: what takes the classes, or the .npy file that they are written to, uint8 [H, W], or, of a GeoTIFF, the
            .tif.
        view: how the model sees the image, in mode stream; by default that of the model.
        changes: fields of the view, put over it.

    Returns how the image was seen: the size of the tiles, their border, the number of passes.
    """
    network = evaluated(from_pretrained(model) if isinstance(model, (str, Path)) else model)
    seen = settled_view(network, view, None, {**changes, "mode": "stream"}).economical
    words = words_of(network, seen)
    reader = _reader(image)
    if isinstance(canvas, (str, Path)):
        known = reader.path if isinstance(reader, (FileReader, RasterReader)) else None
        source = None if known is None else f"{known.absolute()} {known.stat().st_size} {known.stat().st_mtime_ns}"
        write_classes(network, reader, canvas, seen, source=source)
    else:
        with torch.no_grad():
            Tiled(tileable(network), reader, seen, tileable(network).align_corners).write(canvas)
    return words


def reader_of(path: Path, bands: Bands) -> FileReader | RasterReader:
    """Of a .npy file or a TIFF."""
    return FileReader(path) if path.suffix == ARRAYS else RasterReader(path, bands)


def write_classes(
    model: Model,
    reader: Reader,
    path: str | Path,
    view: View,
    *,
    device: torch.device | None = None,
    accumulate_on: torch.device | None = None,
    source: str | None = None,
    quiet: bool = True,
) -> Covered:
    """The classes of an image into a .npy file or, of a GeoTIFF, a .tif, which appears when it is whole.

    Args:
        view: how the model sees the image; where it does not fit into memory, in tiles or windows.
        source: what stands for the image as it is now; where an earlier call was interrupted over the same, with the
            same model and view, it is gone on with. By default nothing is.
        quiet: no progress on standard error.
    """
    path, where = Path(path), device or next(_parameters(model), torch.zeros(0)).device
    if path.suffix not in (ARRAYS, MAPS) or (path.suffix == MAPS and not isinstance(reader, RasterReader)):
        raise ValueError(f"{path}: classes are written to a .npy file, those of a GeoTIFF also to a .tif")
    check_folder(path.parent, str(path))
    if min(reader.size) < (least := smallest_side(model)):
        raise ValueError(f"images must be at least {least}x{least} pixels, not {reader.size[0]}x{reader.size[1]}")
    classes = tuple(getattr(model, "classes", None) or ())
    count = int(getattr(model, "num_classes", len(classes)))
    identity = {
        "source": source or secrets.token_hex(8),
        "size": reader.size,
        "bands": plain(reader.chosen) if isinstance(reader, RasterReader) else None,
        "model": fingerprint(model) if isinstance(model, torch.nn.Module) else repr(model),
        "view": plain(view),
        "device": where.type,
    }
    with working_on(path, identity) as work, torch.no_grad():
        if work.settled is None:
            _check_room(reader, path.parent, count)
            work.settle({"view": plain(_settled(view, model, reader, where))})
        elif work.begun:
            warnings.warn(f"{path.name}: goes on with what an earlier call has done of it", stacklevel=2)
        seen = from_plain(View, (work.settled or {}).get("view"), path).economical
        canvas = work.canvas(reader.size, count)
        fill = _Fill(model, reader, canvas, seen, where, accumulate_on or where, work.folder)
        with _told(fill.left, path.name, quiet) as fill.tick:
            fill.write()
        if path.suffix == MAPS and isinstance(reader, RasterReader):
            answer = work.folder / "answer.tif"
            palette = tuple(getattr(model, "palette", None) or default_palette(count))
            about = {"MODEL": str(identity["model"]), "VIEW": ", ".join(seen.words())}
            covered = write_map(reader, canvas.path, answer, count, Legend(classes, palette, about))
        else:
            answer, covered = canvas.path, Covered(_counted(canvas.path, count), 0, None)
        os.replace(answer, path)
    return covered


@dataclass(eq=False)
class _Fill:
    """A canvas that takes the classes of an image, in the windows that it does not hold yet. tick: called before every
    pass through the model."""

    model: Model
    reader: Reader
    canvas: Resumed
    view: View
    device: torch.device
    kept_on: torch.device
    folder: Path
    tick: Callable[[], None] = lambda: None

    @property
    def left(self) -> int:
        """How often the model is to run, at most."""
        if self.view.mode == "stream":
            return self._tiled.left(self.canvas.done)
        grid = grid_of(self.view, self.reader.size)
        return len(grid.rows) * len(grid.columns) * (1 + self.view.flip)

    def write(self) -> None:
        whole = Window(0, self.reader.size[0], 0, self.reader.size[1])
        if self.view.mode == "stream":
            self._tiled.write(self.canvas, self.canvas.done)
        elif self.view.mode == "slide":
            self._slide(Runner(self.model, self.view, self.device, self.kept_on, self._corners, self.tick))
        elif whole not in self.canvas.done:
            given = (self.view, self._corners, self.device, self.kept_on, self.tick)
            self.canvas.write(whole, look(self.model, self.reader.read(whole)[None], *given).best(keep=False)[0])

    @cached_property
    def _tiled(self) -> Tiled:
        network = tileable(self.model)
        given = (network, self.reader, self.view, self._corners)
        return Tiled(*given, before_pass=lambda: self.tick(), folder=self.folder)

    def _slide(self, runner: Runner) -> None:
        """Panels of columns, in each the rows of windows, top down."""
        if not runner.rolls(self.reader.size):
            raise ValueError(
                "windows over a large image are not resized, nor their logits averaged first: leave out --scales, "
                "--short-side and the like, or choose --mode stream"
            )
        grid, done = grid_of(self.view, self.reader.size), self.canvas.done
        classes = int(getattr(self.model, "num_classes", 1))
        (top, bottom), (left, right) = grid.rows[0], grid.columns[0]
        width = max(2 * (right - left), PANEL // (4 * classes * (bottom - top)))
        for start in range(0, grid.size[1], width):
            columns: Span = (start, min(start + width, grid.size[1]))
            parts = [Window(*rows, *columns) for rows in grid.parts]
            missing = next((number for number, part in enumerate(parts) if part not in done), None)
            if missing is None:
                continue
            first = next(number for number, (_, end) in enumerate(grid.rows) if end > parts[missing].top)
            for part, band in zip(parts[first:], runner.bands(self.reader, columns, first), strict=True):
                if part not in done:
                    self.canvas.write(part, best_class(band)[0])

    @property
    def _corners(self) -> bool:
        return bool(getattr(self.model, "align_corners", False))


def _settled(view: View, model: Model, reader: Reader, device: torch.device) -> View:
    """How the image is seen, whatever memory is free when it is gone on with."""
    found, note = bounded(view, model, reader.size, device)
    if note:
        warnings.warn(note, stacklevel=3)
    if found.mode == "whole" and reader.size[0] * reader.size[1] > MOST_PIXELS and not isinstance(model, Coarse):
        raise ValueError(f"{reader.size[1]}x{reader.size[0]} pixels at once: choose --mode slide --crop N")
    if found.mode != "stream" or found.crop is not None:
        return found
    network = tileable(model)
    return replace(found, crop=tile_of(network, receptive_field(network)))


def _check_room(reader: Reader, folder: Path, num_classes: int) -> None:
    """ValueError where the disk has no room for the classes, once as they are made and once as they stay."""
    folder.mkdir(parents=True, exist_ok=True)
    needed = 2 * reader.size[0] * reader.size[1] * (1 if num_classes <= 256 else 2)
    free = shutil.disk_usage(folder).free
    if needed > free:
        amounts = f"need {needed / 2**30:.1f} GiB in {folder}, where {free / 2**30:.1f} are free"
        raise ValueError(f"the classes of {reader.size[1]}x{reader.size[0]} pixels {amounts}")


def _counted(path: Path, num_classes: int) -> list[int]:
    """Pixels of each class in a .npy file."""
    counts = np.zeros(num_classes, np.int64)
    for top in range(0, np.load(path, mmap_mode="r").shape[0], 256):
        part = np.load(path, mmap_mode="r")[top : top + 256]  # opened anew: what is mapped counts as memory
        counts += np.bincount(part.ravel(), minlength=num_classes)
    return counts.tolist()


@contextmanager
def _told(total: int, label: str, quiet: bool) -> Generator[Callable[[], None], None, None]:
    """A function that counts one more of so many on standard error."""
    steps = (step for step in track(range(total), label, total, quiet))
    try:
        yield lambda: (next(steps, None), None)[1]
    finally:
        steps.close()


def _parameters(model: object) -> Iterator[Tensor]:
    return model.parameters() if isinstance(model, torch.nn.Module) else iter(())


def _reader(image: Reader | Tensor | np.ndarray | str | Path) -> Reader:
    if isinstance(image, (str, Path)):
        return RasterReader(image) if Path(image).suffix.lower() in SUFFIXES else FileReader(image)
    if isinstance(image, np.ndarray):
        return ArrayReader(image)
    return TensorReader(image) if isinstance(image, Tensor) else image
