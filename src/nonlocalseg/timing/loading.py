"""The training loader: images per second of a worker, and where its time goes, on drawn PNGs of Cityscapes' size."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors

from nonlocalseg.data.catalog import DATASETS
from nonlocalseg.data.dataset import SegmentationDataset
from nonlocalseg.data.synthetic import Synthetic, draw_scene
from nonlocalseg.data.transforms import train_transform
from nonlocalseg.files import write_text
from nonlocalseg.timing.measuring import surroundings
from nonlocalseg.timing.tables import Row, Table
from nonlocalseg.training.datamodule import collate


def loader(
    size: tuple[int, int],
    repeat: int = 5,
    picture: tuple[int, int] = (1024, 2048),
    images: int = 8,
    workers: int = 1,
) -> Table:
    """Decoding and augmenting crops of `size` from drawn PNGs of `picture` pixels: each step, one process, a worker.

    Every figure is the median over `repeat` passes of the mean over `images`; it runs on the CPU with one thread.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker of torch's DataLoader
    try:
        with tempfile.TemporaryDirectory() as folder:
            dataset = _drawn_folder(Path(folder), picture, images, size)
            steps, whole = _profile(dataset, repeat), _whole(dataset, repeat)
            from_workers = _from_workers(dataset, repeat, workers)
            where = surroundings(torch.device("cpu"))
    finally:
        torch.set_num_threads(threads)
    total = sum(steps.values())
    rows: list[Row] = [
        {"name": name, "seconds": seconds, "share": seconds / total} for name, seconds in steps.items()
    ]
    rows.append({"name": "all steps, one process", "seconds": whole, "images per second": 1 / whole})
    rows.append({"name": f"DataLoader, a worker of {workers}", "seconds": from_workers, "images per second": 1 / from_workers})
    return Table(
        f"Loading {size[0]}x{size[1]} crops from {picture[1]}x{picture[0]} PNGs",
        {"name": "", "seconds": "time per image", "share": "share", "images per second": "images/s"},
        rows,
        where,
    )


def _drawn_folder(root: Path, picture: tuple[int, int], count: int, crop: tuple[int, int]) -> SegmentationDataset:
    """A folder data set of drawn scenes, with the training transform."""
    from nonlocalseg.data import folder
    from nonlocalseg.images import write_image, write_mask
