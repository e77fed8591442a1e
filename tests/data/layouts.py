"""Tiny images and label images, for the tests that draw an official layout."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nonlocalseg import images
from nonlocalseg.data.dataset import SegmentationDataset
from nonlocalseg.labels import Palette


def picture(path: Path, height: int = 4, width: int = 6) -> np.ndarray:
    """Write a random image that depends on its name alone."""
    generator = np.random.default_rng(zlib.crc32(path.name.encode()))
    pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    images.write_image(path, pixels)
    return pixels


def mask(
    path: Path, values: Sequence[int], height: int = 4, width: int = 6, palette: Palette | None = None
) -> np.ndarray:
    """Write a label image that begins with `values` and goes on with the first of them."""
    label = np.full(height * width, values[0])
    label[: len(values)] = values
    label = label.reshape(height, width)
    images.write_mask(path, label, palette)
    return label


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def label_of(data: SegmentationDataset, index: int = 0) -> np.ndarray:
    """The label of an image that has one."""
    label = data.read(index)[1]
    assert label is not None
    return label


def first(label: np.ndarray | None, count: int) -> list[int]:
    """The first values of a label, row by row."""
    assert label is not None
    assert label.dtype == np.uint8
    return label.reshape(-1)[:count].tolist()
