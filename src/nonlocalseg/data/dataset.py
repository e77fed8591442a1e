"""Image/label pairs: what every data set shares. A data set says where its files are and what its labels mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from nonlocalseg import images

IGNORE = 255
_UNKNOWN = 254

Colour = tuple[int, int, int]
RawValue = int | Colour  # what a label image holds in a pixel
Transform = Callable[[tv_tensors.Image, tv_tensors.Mask | None], tuple[tv_tensors.Image, tv_tensors.Mask | None]]


@dataclass(frozen=True)
class Pair:
    """One image and its label image, where it has one; `name` is unique in its split and usable as a file name."""

    name: str
    image: Path
    label: Path | None


class LabelError(ValueError):
    """A label image that the class map does not fit; `counts` holds the pixels of each unknown value or colour."""

    def __init__(self, message: str, counts: Mapping[RawValue, int] | None = None) -> None:
        super().__init__(message)
        self.counts = dict(counts or {})


class LabelMap:
    """What the values, or the RGB colours, of a label image mean: a class index, or 255 for ignore."""

    def __init__(self, meaning: Mapping[int, int] | Mapping[Colour, int] | Mapping[RawValue, int]) -> None:
        """`meaning`: mask value 0..65535 -> class, or (r, g, b) -> class. Raises `ValueError` for a mixture."""
        kinds = {isinstance(key, tuple) for key in meaning}
        if len(kinds) != 1:
            raise ValueError("a label map holds either mask values or colours, at least one and not both")
        if not all(0 <= index < _UNKNOWN or index == IGNORE for index in meaning.values()):
            raise ValueError(f"class indices go from 0 to {_UNKNOWN - 1}, and {IGNORE} for ignore")
        self.colours = kinds == {True}
        self.meaning: Mapping[Any, int] = dict(meaning)
        keys = [_pack(key) for key in meaning]
        self._table = np.full(1 << 24 if self.colours else max(keys) + 1, _UNKNOWN, np.uint8)
        self._table[keys] = list(meaning.values())

    def __call__(self, raw: np.ndarray) -> np.ndarray:
        """Values [H, W] or colours [H, W, 3] -> uint8 [H, W], 255 for ignore.

        Raises `LabelError` for values or colours that the map does not know, and for colours where it expects values
        or the reverse.
        """
        if (raw.ndim == 3) != self.colours:
            expected, found = ("RGB colours", "single values") if self.colours else ("single values", "RGB colours")
            raise LabelError(f"label holds {found} where the class map expects {expected}")
        packed = raw
        if self.colours:
            wide = raw.astype(np.int32)
            packed = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
        if packed.size and (packed.min() < 0 or packed.max() >= len(self._table)):
            inside = (packed >= 0) & (packed < len(self._table))
            label = np.where(inside, self._table[np.where(inside, packed, 0)], np.uint8(_UNKNOWN))
        else:
            label = self._table[packed]
        lost = packed[label == _UNKNOWN]
        if lost.size:
            values, counts = np.unique(lost, return_counts=True)
            unknown = {self._unpack(int(values[i])): int(counts[i]) for i in np.argsort(-counts, kind="stable")}
            raise LabelError(f"label has {spell_counts(unknown)}, which the class map does not know", unknown)
        return label

    def _unpack(self, key: int) -> RawValue:
        return (key >> 16, key >> 8 & 255, key & 255) if self.colours else key


class SegmentationDataset(Dataset[dict[str, Any]]):
    """Pairs of images and label images of one split.

    A data set sets `classes`, `palette`, `splits` and `label_map`, and overrides `find_pairs`; where its labels are
    not single image files, also `raw_label` (as stored) and `map_label` (what that means). Where that depends on an
    option, as in the generic folder, `__init__` sets them after calling this one.
    """

    classes: tuple[str, ...]
    palette: tuple[Colour, ...]
    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")
    label_map: LabelMap
    expected_counts: ClassVar[Mapping[str, int]] = {}  # pairs in the published data set, by split

    def __init__(
        self, root: str | Path | None, split: str = "train", transform: Transform | None = None, *, strict: bool = True
    ) -> None:
        """`strict=False` leaves images and labels without partner in `unmatched` instead of refusing them.

        Raises `FileNotFoundError` for a missing root and `ValueError` for an unknown split, an image or label
        without partner, and a split without images.
        """
        self.root = _folder(root)
        self.split = split
        self.transform = transform
        if split not in self.splits:
            raise ValueError(f"split {split!r} does not exist; choose from {', '.join(self.splits)}")
        self.pairs, self.unmatched = self.find_pairs()
        if strict and self.unmatched:
            more = f" (and {len(self.unmatched) - 1} more files)" if len(self.unmatched) > 1 else ""
            raise ValueError(f"{self.unmatched[0]}: no partner of that name{more}; add it, or remove this one")
        if strict and not self.pairs:
            raise ValueError(f"{self.root}: no images in split {split!r}")

    @classmethod
    def disjoint_splits(cls, root: Path) -> tuple[str, ...]:
        """The splits that together hold every pair once: what `check_dataset` goes through."""
        return tuple(split for split in cls.splits if split not in ("trainval", "all"))

    def find_pairs(self) -> tuple[list[Pair], list[Path]]:
        """The pairs of `self.split` below `self.root`, and the files that lack a partner."""
        raise NotImplementedError

    def read_image(self, index: int) -> np.ndarray:
        """The picture, uint8 [H, W, 3] RGB."""
        return images.read_image(self.pairs[index].image)

    def raw_label(self, index: int) -> np.ndarray | None:
        """The label as stored: values [H, W] or colours [H, W, 3]; None where the image has none."""
        path = self.pairs[index].label
        return None if path is None else images.read_mask(path)

    def map_label(self, raw: np.ndarray) -> np.ndarray:
        """What is stored -> class indices uint8 [H, W], 255 for ignore. Raises `ValueError` for unknown values."""
        return self.label_map(raw)

    def name(self, index: int) -> str:
        return self.pairs[index].name

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Image uint8 [H, W, 3] and label uint8 [H, W] (255 = ignore; None where there is none), untransformed.

        Raises `ValueError` that names the file where it is unreadable, has an unknown value, or differs in size.
        """
        pair = self.pairs[index]
        image = self.read_image(index)
        raw = self.raw_label(index)
        if raw is None:
            return image, None
        try:
            label = self.map_label(raw)
        except ValueError as error:
            raise ValueError(f"{pair.label}: {error}") from None
        if label.shape != image.shape[:2]:
            sizes = f"{label.shape[1]}x{label.shape[0]}, its image {image.shape[1]}x{image.shape[0]}"
            raise ValueError(f"{pair.label}: label is {sizes} (width x height); they must be equal")
        return image, label

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """`image` float32 [3, H, W] RGB in [0, 1], `label` int64 [H, W] where there is one, `index`.

        The transform sees the image as uint8 [3, H, W] and the label as uint8 [H, W]: a quarter of the traffic.
        """
        pixels, indices = self.read(index)
        image = tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1))
        label = None if indices is None else tv_tensors.Mask(torch.from_numpy(indices))
        if self.transform is not None:
            image, label = self.transform(image, label)
        sample: dict[str, Any] = {"image": F.to_dtype(image, torch.float32, scale=True), "index": index}
        if label is not None:
            sample["label"] = F.to_dtype(label, torch.int64)
        return sample


def pair_by_stem(
    image_files: Iterable[Path], label_files: Iterable[Path], image_root: Path, label_root: Path
) -> tuple[list[Pair], list[Path]]:
    """Images and labels whose paths below their roots agree but for the suffix; and the files without partner.

    Raises `ValueError` where two files of one side share a stem.
    """
    image_of = _by_stem(image_files, image_root)
    label_of = _by_stem(label_files, label_root)
    both = sorted(image_of.keys() & label_of.keys())
    alone = [image_of[key] for key in sorted(image_of.keys() - label_of.keys())]
    alone += [label_of[key] for key in sorted(label_of.keys() - image_of.keys())]
    return [Pair(key.replace("/", "__"), image_of[key], label_of[key]) for key in both], alone


def subfolder(root: Path, *names: str) -> Path:
    """`root/names[0]/...`, which must exist. Raises `FileNotFoundError`."""
    folder = root.joinpath(*names)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; the data set needs {'/'.join(names)} in its root")
    return folder


def _by_stem(files: Iterable[Path], root: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in files:
        key = file.relative_to(root).with_suffix("").as_posix()
        if key in found:
            raise ValueError(f"{file}: has the same name as {found[key].name}; rename or remove one of them")
        found[key] = file
    return found


def _folder(root: str | Path | None) -> Path:
    if root is None:
        raise ValueError("no root is given: add --root DIR, the folder of the data set")
    path = Path(root).expanduser()
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such folder; root is the folder of the data set")
    return path


def _pack(key: int | Sequence[int]) -> int:
    """A mask value as it is, a colour as 0xRRGGBB. Raises `ValueError` outside 0..65535 or 0..255."""
    if isinstance(key, int):
        if not 0 <= key <= 65535:
            raise ValueError(f"mask values go from 0 to 65535, not {key}")
        return key
    if len(key) != 3 or not all(0 <= part <= 255 for part in key):
        raise ValueError(f"a colour is three numbers from 0 to 255, not {list(key)}")
    return key[0] << 16 | key[1] << 8 | key[2]


def spell_counts(counts: Mapping[RawValue, int]) -> str:
    """ "value 7 in 120 pixels, value 9 in 4 pixels", or the same with colours; the first five."""
    kind = "colour" if any(isinstance(key, tuple) for key in counts) else "value"
    first = ", ".join(f"{kind} {_spell(key)} in {count} pixels" for key, count in list(counts.items())[:5])
    return first + (f" and {len(counts) - 5} more" if len(counts) > 5 else "")


def _spell(key: RawValue) -> str:
    return str(key) if isinstance(key, int) else "#{:02x}{:02x}{:02x}".format(*key)
