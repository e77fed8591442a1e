"""`write_shards()`: the images and labels of a data set into tar files with an index, which `shards.py` reads."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from nonlocalseg.data.dataset import SegmentationDataset
from nonlocalseg.data.shards import INDEX, Index, Sample, Stored, is_sharded, member_name, shard_name
from nonlocalseg.data.source import DataSource
from nonlocalseg.files import write_text, writing
from nonlocalseg.images import SUFFIXES
from nonlocalseg.values import plain

Form = Literal["pixels", "files"]
"""Decoded pictures, which need no decoding at every reading; or the image files as they are, which are smaller."""
EACH = 128
"""Samples in a shard."""
HEADER = 512
"""Bytes of a tar before the content of each of its files."""
Progress = Callable[[Iterable[Any], int], Iterable[Any]]


def write_shards(
    source: DataSource,
    out: str | Path,
    form: Form = "pixels",
    workers: int | None = None,
    progress: Progress | None = None,
) -> Index:
    """Write every split of `source` that is there into shards in the folder `out`, in parallel, and the index last.

    An image that several splits hold is written once. workers: threads, by default one for each core. Raises
    `ValueError` and OSError for what is wrong with the data, and `ValueError` where `out` holds anything but shards
    that were left unfinished.
    """
    folder = Path(out).expanduser()
    if source.root is not None and is_sharded(source.root):
        raise ValueError(f"--root: {source.root} holds shards already; give the data set's own files")
    if folder.is_dir() and (is_sharded(folder) or any(path.suffix != ".tar" for path in folder.iterdir())):
        raise ValueError(f"--shards: {folder} is not empty; choose another folder, or remove what is in it")
    parts = _splits(source)
    numbers: dict[tuple[object, ...], int] = {}
    splits: dict[str, list[tuple[str, int]]] = {}
    scenes: list[tuple[SegmentationDataset, int]] = []
    for split, data in parts.items():
        splits[split] = []
        for place in range(len(data)):
            number = numbers.setdefault(_identity(data, place), len(scenes))
            scenes += [(data, place)] if number == len(scenes) else []
            splits[split].append((data.name(place), number))
    folder.mkdir(parents=True, exist_ok=True)
    shards = [(folder, number, scenes[number * EACH :][:EACH], form) for number in range(-(-len(scenes) // EACH))]
    samples: list[Sample] = []
    for found in (progress or _silent)(_in_threads(shards, workers), len(shards)):
        samples += found
    first = next(iter(parts.values()))
    index = Index(
        data=source.data,
        data_options=dict(source.data_options),
        classes=first.classes,
        palette=first.palette,
        label_map=first.labels.meaning,
        disjoint=tuple(split for split in source.disjoint_splits() if split in splits),
        splits={split: tuple(pairs) for split, pairs in splits.items()},
        sizes=tuple((folder / shard_name(number)).stat().st_size for number in range(len(shards))),
        samples=tuple(samples),
    )
    write_text(folder / INDEX, json.dumps(plain(index), separators=(",", ":")) + "\n")
    return index


def _silent(finished: Iterable[Any], _count: int) -> Iterable[Any]:
    return finished


def _splits(source: DataSource) -> dict[str, SegmentationDataset]:
    """Every split that is there, opened."""
    found: dict[str, SegmentationDataset] = {}
    missing: list[FileNotFoundError] = []
    alone = source.disjoint_splits()
    for split in source.kind().splits:
        try:
            found[split] = source.open_split(split)
        except FileNotFoundError as error:
            missing.append(error)
        except ValueError:
            if split in alone:
                raise
    if not found:
        raise missing[0]
    return found


def _identity(data: SegmentationDataset, place: int) -> tuple[object, ...]:
    """What tells a pair from others, whatever split it stands in."""
    pair = data.pairs[place]
    inside = pair.image.suffix.lower() not in SUFFIXES  # the images of one file, or drawn ones
    return (pair.image, pair.label, *((data.split, pair.name) if inside else ()))


def _in_threads(shards: Sequence[tuple[Any, ...]], workers: int | None) -> Iterator[list[Sample]]:
    pool = ThreadPoolExecutor(workers or os.cpu_count() or 1)
    try:
        yield from pool.map(lambda shard: _write_shard(*shard), shards)
    finally:
        pool.shutdown(cancel_futures=True)  # after a mistake or Ctrl-C: finish what is being written, nothing more


def _write_shard(
    folder: Path, number: int, scenes: Sequence[tuple[SegmentationDataset, int]], form: Form
) -> list[Sample]:
    samples = []
    with (
        writing(folder / shard_name(number)) as temporary,
        tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for own, (data, place) in enumerate(scenes, number * EACH):
            image, label = data.read(place)
            file = data.pairs[place].image
            whole = form == "files" and file.suffix.lower() in SUFFIXES and file.is_file()
            samples.append(
                Sample(
                    shard=number,
                    image=_add_file(tar, own, file) if whole else _add_pixels(tar, own, "image", image),
                    label=None if label is None else _add_label(tar, own, label, form),
                )
            )
    return samples


def _add_file(tar: tarfile.TarFile, number: int, file: Path) -> Stored:
    return _add(tar, number, "image", file.suffix.lower(), b"", file.read_bytes())


def _add_label(tar: tarfile.TarFile, number: int, label: np.ndarray, form: Form) -> Stored:
    if form == "pixels":
        return _add_pixels(tar, number, "label", label)
    content = BytesIO()
    Image.fromarray(label).save(content, "PNG")
    return _add(tar, number, "label", ".png", b"", content.getvalue())


def _add_pixels(tar: tarfile.TarFile, number: int, what: str, pixels: np.ndarray) -> Stored:
    """As a PPM or PGM (Netpbm's P6 and P5), whose pixels stand behind a short header."""
    height, width = pixels.shape[:2]
    header = f"P{6 if pixels.ndim == 3 else 5}\n{width} {height}\n255\n".encode()
    suffix = ".ppm" if pixels.ndim == 3 else ".pgm"
    return replace(_add(tar, number, what, suffix, header, pixels.tobytes()), shape=(height, width))


def _add(tar: tarfile.TarFile, number: int, what: str, suffix: str, header: bytes, content: bytes) -> Stored:
    member = tarfile.TarInfo(member_name(number, what, suffix))
    member.size = len(header) + len(content)
    start = tar.offset + HEADER + len(header)
    tar.addfile(member, BytesIO(header + content))
    return Stored(start=start, size=len(content), suffix=suffix)
