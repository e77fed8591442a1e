"""A data set in shards: few large tar files with an index, from which any image is read at once, decoded beforehand.

The tars hold what WebDataset's do, 00000007.image.ppm beside 00000007.label.pgm, so that other tools read them as well.
Labels are class indices. `shards.json` says which image has which name in which split, and where its bytes lie.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from nonlocalseg import images
from nonlocalseg.choices import pick
from nonlocalseg.data.dataset import Labels, SegmentationDataset
from nonlocalseg.data.pairing import Pair
from nonlocalseg.files import read_text
from nonlocalseg.labels import Colour, LabelMap
from nonlocalseg.values import Count, Natural, from_plain, value

if TYPE_CHECKING:
    from nonlocalseg.data.dataset import Transform
    from nonlocalseg.data.source import DataSource

INDEX = "shards.json"
FILE = re.compile(r"[0-9]{5}\.tar")


@value
class Stored:
    """Where a picture lies in its tar: decoded (.ppm, .pgm) the pixels themselves, otherwise a whole image file."""

    start: Natural
    size: Count
    suffix: str
    shape: tuple[Count, Count] | None = None
    "Height and width of decoded pixels."


@value
class Sample:
    """One image and its label in the shard of this number."""

    shard: Natural
    image: Stored
    label: Stored | None


@value
class Index:
    """What `shards.json` holds."""

    data: str
    data_options: dict[str, object]
    classes: tuple[str, ...]
    palette: tuple[Colour, ...]
    label_map: LabelMap
    disjoint: tuple[str, ...]
    "The splits that together hold every pair once."
    splits: dict[str, tuple[tuple[str, Natural], ...]]
    "The name of each pair, and the number of its sample."
    sizes: tuple[Natural, ...]
    "Bytes of each shard."
    samples: tuple[Sample, ...]


def is_sharded(root: str | Path) -> bool:
    """Whether the folder holds shards."""
    return (Path(root).expanduser() / INDEX).is_file()


def read_index(root: str | Path) -> Index:
    """The index of the shards in `root`, which all have the sizes that it says.

    Raises `ValueError` and OSError, one line, where it is damaged or a shard is missing or cut off.
    """
    path = Path(root).expanduser() / INDEX
    try:
        content = json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: no index of shards ({error}); make the shards again") from None
    index = from_plain(Index, content, path)
    for number, size in enumerate(index.sizes):
        shard = path.with_name(shard_name(number))
        found = shard.stat().st_size
        if found != size:
            raise ValueError(f"{shard}: has {found} bytes where {INDEX} says {size}; copy it again, or make it again")
    for number, sample in enumerate(index.samples):
        if sample.shard >= len(index.sizes) or not all(
            _fits(stored, index.sizes[sample.shard], channels)
            for stored, channels in ((sample.image, 3), (sample.label, 1))
            if stored
        ):
            raise ValueError(f"{path}: sample {number} does not lie in its shard; make the shards again")
    if any(number >= len(index.samples) for pairs in index.splits.values() for _, number in pairs):
        raise ValueError(f"{path}: a split names samples that there are not; make the shards again")
    return index


def _fits(stored: Stored, size: int, channels: int) -> bool:
    if stored.shape is not None and stored.shape[0] * stored.shape[1] * channels != stored.size:
        return False
    return stored.start + stored.size <= size and re.fullmatch(r"\.[a-z0-9]{1,5}", stored.suffix) is not None


def shard_name(number: int) -> str:
    return f"{number:05d}.tar"


def member_name(number: int, what: str, suffix: str) -> str:
    """Of a sample's `image` or `label` in its tar."""
    return f"{number:08d}.{what}{suffix}"


class Shards(SegmentationDataset):
    """One split of a data set, from its shards: the same pairs in the same order with the same pixels as from its files."""

    def __init__(self, source: DataSource, split: str, transform: Transform | None = None) -> None:
        """Raises `ValueError` for shards of another data set, with other options, or without the split."""
        kind, index = source.kind(), read_index(source.root or "")
        self.root, self.split, self.transform = Path(source.root or "").expanduser(), split, transform
        if index.data != source.data:
            raise ValueError(
                f"{self.root}: holds shards of {index.data}, not of {source.data}: give --data {index.data}"
            )
        self.options = source.read_options()
        if self.options != kind.read_options(index.data_options):
            raise ValueError(f"data_options: the shards in {self.root} were made with {index.data_options or 'none'}")
        pick(f"split of the shards in {self.root}", split, index.splits)
        chosen = index.splits[split]
        self.samples = tuple((number, index.samples[number]) for _, number in chosen)
        self.pairs = tuple(self._pair(name, index, number) for name, number in chosen)
        self.classes, self.palette, self.labels = index.classes, index.palette, Labels(index.label_map)
        self.unmatched, self.notes = (), ()

    def _pair(self, name: str, index: Index, number: int) -> Pair:
        sample = index.samples[number]
        shard = self.root / shard_name(sample.shard)
        image = shard / member_name(number, "image", sample.image.suffix)
        return Pair(name, image, sample.label and shard / member_name(number, "label", sample.label.suffix))

    def read_image(self, position: int) -> np.ndarray:
        sample = self.samples[position][1]
        return self._read(sample.shard, sample.image, 3, self.pairs[position].image)

    def raw_label(self, position: int) -> np.ndarray | None:
        """The class indices, uint8 [H, W]."""
        sample, path = self.samples[position][1], self.pairs[position].label
        return None if sample.label is None else self._read(sample.shard, sample.label, 1, cast(Path, path))

    def map_label(self, raw: np.ndarray) -> np.ndarray:
        return raw

    def _read(self, shard: int, stored: Stored, channels: int, path: Path) -> np.ndarray:
        """Decoded pixels stay in the file until they are used: a crop reads its own rows alone."""
        file = self.root / shard_name(shard)
        if stored.shape is not None:
            shape = (*stored.shape, channels) if channels > 1 else stored.shape
            return np.asarray(np.memmap(file, np.uint8, mode="c", offset=stored.start, shape=shape))
        with file.open("rb") as opened:
            opened.seek(stored.start)
            data = opened.read(stored.size)
        return images.read_image(path, data) if channels > 1 else images.read_mask(path, data)
