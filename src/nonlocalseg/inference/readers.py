"""Where the pixels of an image come from and where its classes go, window by window: arrays, tensors, .npy files."""

from __future__ import annotations

import os
import tokenize
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from nonlocalseg.inference.windows import Window


class Reader(Protocol):
    """An image that is read in windows. size: height and width."""

    @property
    def size(self) -> tuple[int, int]: ...

    def read(self, window: Window) -> Tensor:
        """uint8 [3, h, w], or float in [0, 1]."""
        ...


class Canvas(Protocol):
    """What takes the classes of an image, window by window; every pixel once."""

    def write(self, window: Window, classes: Tensor) -> None:
        """Take int64 [h, w] of that window."""
        ...


class TensorReader:
    """An image [3, H, W], uint8 or float in [0, 1]."""

    def __init__(self, image: Tensor) -> None:
        self._image = image
        self.size: tuple[int, int] = (image.shape[-2], image.shape[-1])

    def read(self, window: Window) -> Tensor:
        return self._image[window.area]


class ArrayReader:
    """An array uint8 [H, W, 3]. ValueError for another one."""

    def __init__(self, array: np.ndarray, name: str = "image") -> None:
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
            raise ValueError(f"{name}: {array.dtype} {list(array.shape)}; an image is an RGB array uint8 [H, W, 3]")
        self._array = array
        self.size: tuple[int, int] = (array.shape[0], array.shape[1])

    def read(self, window: Window) -> Tensor:
        part = self._array[window.top : window.bottom, window.left : window.right]
        return torch.from_numpy(np.array(part)).permute(2, 0, 1)


class FileReader:
    """A .npy file of uint8 [H, W, 3], of which only the windows are read. ValueError for another file."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.size: tuple[int, int] = ArrayReader(self._opened(), str(path)).size

    def read(self, window: Window) -> Tensor:
        return ArrayReader(self._opened()).read(window)  # opened anew: what is mapped counts as memory

    def _opened(self) -> np.ndarray:
        if not self.path.is_file():
            raise FileNotFoundError(f"{self.path}: no such file")
        try:
            return np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError, TypeError, OverflowError, tokenize.TokenError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"{self.path}: no .npy file of an RGB array uint8 [H, W, 3]: {reason}") from None


class TensorCanvas:
    """Classes in memory: `classes` int64 [H, W]."""

    def __init__(self, size: tuple[int, int], device: torch.device | str = "cpu") -> None:
        self.classes = torch.zeros(size, dtype=torch.int64, device=device)

    def write(self, window: Window, classes: Tensor) -> None:
        self.classes[window.area] = classes.to(self.classes.device)


def allocate(path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> None:
    """A .npy file of zeros whose place on the disk is taken now: OSError here, where there is none, and not a crash of
    the process when a mapped page cannot be written."""
    np.lib.format.open_memmap(path, "w+", dtype, shape).flush()
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


class FileCanvas:
    """Classes in a .npy file, uint8 [H, W], or uint16 for more than 256 classes.

    The file is as large as it will be from the first. Write it beside its place (`files.writing`), for it is whole only
    at the end. keep: go on with the one that is there.
    """

    def __init__(self, path: str | Path, size: tuple[int, int], num_classes: int, keep: bool = False) -> None:
        self.path = Path(path)
        if not keep:
            allocate(self.path, size, np.uint8 if num_classes <= 256 else np.uint16)

    def write(self, window: Window, classes: Tensor) -> None:
        opened = np.lib.format.open_memmap(self.path, "r+")  # anew: what is mapped counts as memory
        opened[window.top : window.bottom, window.left : window.right] = classes.cpu().numpy()
        opened.flush()
