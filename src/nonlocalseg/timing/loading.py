"""The training loader: images per second of a worker, and where its time goes, from drawn PNGs of Cityscapes' size and
from shards of them."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from nonlocalseg.data.augmentation import Augmentation
from nonlocalseg.data.dataset import SegmentationDataset
from nonlocalseg.data.folder import Folder
from nonlocalseg.data.sharding import Form, write_shards
from nonlocalseg.data.source import DataSource
from nonlocalseg.data.synthetic import Synthetic, draw_scene
from nonlocalseg.data.transforms import train_transform
from nonlocalseg.files import write_text
from nonlocalseg.timing.measuring import surroundings
from nonlocalseg.timing.tables import Row, Table
from nonlocalseg.training.data import Draw, DrawOrder, SeededImages, collate


def loader(
    size: tuple[int, int],
    repeat: int = 5,
    picture: tuple[int, int] = (1024, 2048),
    images: int = 8,
    workers: int = 1,
) -> Table:
    """Decoding and augmenting crops of `size` from drawn PNGs of `picture` pixels: each step, one process, a worker; and
    the same crops from shards of either form, read in turn with the files.

    Every figure is the median over `repeat` passes of the mean over `images`; it runs on the CPU with one thread, as a
    worker of torch's DataLoader does.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            data = drawn_folder(Path(folder) / "drawn", picture, images, size)
            steps = _steps(data, repeat)
            drawn = SeededImages(data, seed=0)
            sources = {"files": drawn, **{name: SeededImages(one, 0) for name, one in _sharded(data).items()}}
            alone = _alternated(sources, repeat, images)
            in_worker = _in_workers(drawn, repeat * images, workers) * workers
            where = surroundings(torch.device("cpu"))
    finally:
        torch.set_num_threads(threads)
    total = sum(steps.values())
    rows: list[Row] = [{"name": name, "seconds": each, "share": each / total} for name, each in steps.items()]
    whole = {f"all of it, from {name}, one process": each for name, each in alone.items()}
    whole[f"each of {workers} workers"] = in_worker
    rows += [{"name": name, "seconds": each, "images_per_second": 1 / each} for name, each in whole.items()]
    return Table(
        f"Loading {size[0]}x{size[1]} crops from {picture[1]}x{picture[0]} PNGs",
        {"name": "", "seconds": "time per image", "share": "share", "images_per_second": "images/s"},
        rows,
        where,
    )


def drawn_folder(root: Path, picture: tuple[int, int], count: int, crop: tuple[int, int]) -> Folder:
    """A folder data set of `count` drawn scenes below `root`, with the training transform."""
    for index in range(count):
        image, label = draw_scene(np.random.default_rng(index), *picture)
        for kind, pixels in (("images", image), ("masks", label)):
            path = root / kind / "train" / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    lines = [f"  {index}: {name}" for index, name in enumerate(Synthetic.classes)]
    write_text(root / "classes.yaml", "masks:\n" + "\n".join(lines) + "\n")
    return Folder(root, "train", train_transform(Augmentation(crop=crop)))


def _steps(data: Folder, repeat: int) -> dict[str, float]:
    """Median over passes of the mean seconds of every step of `data[i]`, in order."""
    assert isinstance(data.transform, v2.Compose)
    transforms = list(data.transform.transforms)
    passes: list[dict[str, float]] = []
    for number in range(repeat):
        torch.manual_seed(number)
        spent: dict[str, float] = {}
        for index in range(len(data)):
            pixels = _timed(spent, "decode the image", data.read_image, index)
            raw = _timed(spent, "decode the label", data.raw_label, index)
            label = _timed(spent, "map the label", data.map_label, raw)
            sample: Any = (
                tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1)),
                tv_tensors.Mask(torch.from_numpy(label)),
            )
            for transform in transforms:
                sample = _timed(spent, type(transform).__name__, transform, *sample)
            _timed(spent, "label to int64", F.to_dtype, sample[1], torch.int64)
        passes.append({name: seconds / len(data) for name, seconds in spent.items()})
    return {name: statistics.median(one[name] for one in passes) for name in passes[0]}


def _timed(spent: dict[str, float], name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    start = time.perf_counter()
    result = function(*arguments)
    spent[name] = spent.get(name, 0.0) + time.perf_counter() - start
    return result


def _sharded(data: Folder) -> dict[str, SegmentationDataset]:
    """The same data set from shards, by what they hold."""
    source, forms = DataSource(data="folder", root=str(data.root)), get_args(Form)
    found = {}
    for form in forms:
        place = data.root.with_name(f"{data.root.name}-{form}")
        write_shards(source, place, form)
        found[f"shards of {form}"] = DataSource(data="folder", root=str(place)).open_split("train", data.transform)
    return found


def _alternated(sources: Mapping[str, SeededImages], repeat: int, images: int) -> dict[str, float]:
    """Median over passes of the mean seconds per image of each source; they take turns, and draw alike."""
    passes: dict[str, list[float]] = {name: [] for name in sources}
    for number in range(repeat):
        for name, source in sources.items():
            start = time.perf_counter()
            for index in range(images):
                source[Draw(index, number * images + index)]
            passes[name].append((time.perf_counter() - start) / images)
    return {name: statistics.median(seconds) for name, seconds in passes.items()}


def _in_workers(images: SeededImages, count: int, workers: int) -> float:
    """Seconds per image of `count` images from a DataLoader, its start excluded."""
    order = DrawOrder(len(images), count + workers, 1, 1, 0, 1, seed=0)
    batches = iter(DataLoader(images, batch_sampler=order, num_workers=workers, collate_fn=collate, prefetch_factor=1))
    for _ in range(workers):
        next(batches)
    start = time.perf_counter()
    delivered = sum(1 for _ in batches)
    return (time.perf_counter() - start) / delivered
