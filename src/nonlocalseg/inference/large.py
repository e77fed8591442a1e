"""`predict_into()`: the classes of an image that need not fit into memory, from a reader into a canvas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nonlocalseg.files import writing
from nonlocalseg.inference.borrowed import Model, evaluated, settled_view, tileable
from nonlocalseg.inference.readers import ArrayReader, Canvas, FileCanvas, FileReader, Reader, TensorReader
from nonlocalseg.inference.tiled import Tiled, words_of
from nonlocalseg.view import View
from nonlocalseg.zoo.pretrained import from_pretrained

ARRAYS = ".npy"
"""What files are called of which only windows are read."""


def predict_into(
    model: Model | str | Path,
    image: Reader | Tensor | np.ndarray | str | Path,
    canvas: Canvas | str | Path,
    view: View | None = None,
    **changes: object,
) -> str:
    """The best class of every pixel of an image of any size, exactly as if it were seen whole, in the memory of a tile.

    The model runs where it is. Raises ValueError for a model that cannot be seen in tiles, with the reason, and for an
    image that cannot be read.

    Args:
        model: a network of this library, or what `from_pretrained` loads.
        image: a reader, uint8 [H, W, 3], a tensor [3, H, W], or a .npy file of uint8 [H, W, 3], read in windows.
        canvas: what takes the classes, or the .npy file that they are written to, uint8 [H, W].
        view: how the model sees the image, in mode stream; by default that of the model.
        changes: fields of the view, put over it.

    Returns how the image was seen: the size of the tiles, their border, the number of passes.
    """
    network = evaluated(from_pretrained(model) if isinstance(model, (str, Path)) else model)
    seen = settled_view(network, view, None, {**changes, "mode": "stream"}).economical
    reader = _reader(image)
    if isinstance(canvas, (str, Path)):
        write_classes(network, reader, canvas, seen)
    else:
        with torch.no_grad():
            Tiled(tileable(network), reader, seen, tileable(network).align_corners).write(canvas)
    return words_of(network, seen)


def write_classes(model: object, image: Reader | str | Path, path: str | Path, view: View) -> list[int]:
    """The classes of an image into a .npy file, which appears when it is whole; how many pixels each class has."""
    network = tileable(model)
    reader = FileReader(image) if isinstance(image, (str, Path)) else image
    with torch.no_grad(), writing(path) as temporary:
        canvas = FileCanvas(temporary, reader.size, network.num_classes)
        Tiled(network, reader, view.economical, network.align_corners).write(canvas)
    return canvas.counts.tolist()


def _reader(image: Reader | Tensor | np.ndarray | str | Path) -> Reader:
    if isinstance(image, (str, Path)):
        return FileReader(image)
    if isinstance(image, np.ndarray):
        return ArrayReader(image)
    return TensorReader(image) if isinstance(image, Tensor) else image
