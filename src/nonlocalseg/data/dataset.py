"""What every data set shares. A data set says where its files are and what its labels mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nonlocalseg import images
from nonlocalseg.choices import pick
from nonlocalseg.data.pairing import Matched, Pair
from nonlocalseg.labels import IGNORE, Colour, LabelMap
from nonlocalseg.values import names_of, value

if TYPE_CHECKING:
    from torchvision import tv_tensors

    Transform = Callable[[tv_tensors.Image, tv_tensors.Mask | None], tuple[tv_tensors.Image, tv_tensors.Mask | None]]


@value
class DatasetOptions:
    """What a data set can be asked for beside its root and its split; one that has such options inherits from this."""


def read_stored(label: Path, _name: str) -> np.ndarray:
    """A label that is one image file."""
    return images.read_mask(label)


@dataclass(frozen=True)
class Labels:
    """How labels are read: from a file to what is stored in it, and from that to classes.

    meaning: what is stored -> class indices. stored: (label file, name of the pair) -> values or colours.
    """

    meaning: LabelMap
    stored: Callable[[Path, str], np.ndarray] = read_stored


@dataclass(frozen=True)
class Discovery:
    """What was found of one split: its pairs, the files that lack a partner, and what the labels mean.

    notes: what a user should know of how the files were understood, one sentence each.
    """

    pairs: tuple[Pair, ...]
    unmatched: tuple[Path, ...]
    classes: tuple[str, ...]
    palette: tuple[Colour, ...]
    labels: Labels
    notes: tuple[str, ...] = ()


class SegmentationDataset:
    """Pairs of images and label images of one split.

    A data set sets `classes`, `palette`, `labels` and `splits`, and overrides `discover`, which ends in `found`. What
    depends on the files or on an option is left out of the class and comes with the `Discovery`.
    """

    classes: tuple[str, ...] = ()
    palette: tuple[Colour, ...] = ()
    labels: Labels
    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")
    expected_counts: ClassVar[Mapping[str, int]] = {}  # pairs in the published data set, by split
    needs_root: ClassVar[bool] = True
    Options: ClassVar[type[DatasetOptions]] = DatasetOptions
    options: DatasetOptions

    def __init__(
        self,
        root: str | Path | None = None,
        split: str = "train",
        transform: Transform | None = None,
        *,
        strict: bool = True,
        **options: object,
    ) -> None:
        """`strict=False` leaves images and labels without partner in `unmatched` instead of refusing them.

        Raises `FileNotFoundError` for a missing root and `ValueError` for an unknown split or option, an image or label
        without partner, and a split without images.
        """
        self.options = self.read_options(options)
        self.root = _folder(root) if self.needs_root or root is not None else Path()
        self.split = pick("split", split, self.splits)
        self.transform = transform
        found = self.discover()
        self.pairs, self.unmatched = found.pairs, found.unmatched
        self.classes, self.palette, self.labels = found.classes, found.palette, found.labels
        self.notes = found.notes
        if strict and self.unlike:
            raise ValueError(f"{self.root}: {self.unlike}")
        if strict and found.unmatched:
            first, *others = found.unmatched
            more = f" (and {len(others)} more files)" if others else ""
            raise ValueError(f"{first}: no partner of that name{more}; add it, or remove this one")
        if strict and not self.pairs:
            raise ValueError(f"{self.root}: no images in split {split!r}")

    @property
    def unlike(self) -> str | None:
        """What is wrong where there are images and labels, and no pair: one of each, and the cure. None otherwise."""
        if self.pairs or not self.unmatched or self.unmatched[0].parent == self.unmatched[-1].parent:
            return None
        first, last = self.unmatched[0].name, self.unmatched[-1].name
        return f"no image and label of {self.split} share a name ({first}, {last}); name both alike up to the ending"

    @classmethod
    def read_options(cls, given: Mapping[str, object]) -> DatasetOptions:
        """`given`, checked. Raises `ValueError` for an option that the data set does not have and for a wrong value."""
        known = names_of(cls.Options)
        for name in given:
            if not known:
                raise ValueError(f"{cls.__name__} has no options; leave {name!r} out")
            pick(f"option of {cls.__name__}", name, known)
        return cls.Options(**given)

    @classmethod
    def known_classes(cls, options: DatasetOptions) -> tuple[str, ...] | None:
        """The classes as far as they are known before any file is read; None where the files name them."""
        return cls.classes or None

    @classmethod
    def known_palette(cls, options: DatasetOptions) -> tuple[Colour, ...]:
        """Their colours."""
        return cls.palette

    @classmethod
    def disjoint_splits(cls, root: Path, options: DatasetOptions) -> tuple[str, ...]:
        """The splits that together hold every pair once: what `check_dataset` goes through."""
        return tuple(split for split in cls.splits if split not in ("trainval", "all"))

    def discover(self) -> Discovery:
        """The files of `self.split` below `self.root`; nothing is changed, however often it is called."""
        raise NotImplementedError

    @classmethod
    def found(cls, matched: Matched, labels: Labels | None = None) -> Discovery:
        """Pairs of the classes that the data set always has; `labels` where the way to read them was found as well."""
        pairs, unmatched = matched
        return Discovery(tuple(pairs), tuple(unmatched), cls.classes, cls.palette, labels or cls.labels)

    @property
    def parts(self) -> tuple[str, ...]:
        """The splits whose files make up this one."""
        return ("train", "val") if self.split == "trainval" else (self.split,)

    def read_image(self, index: int) -> np.ndarray:
        """The picture, uint8 [H, W, 3] RGB."""
        return images.read_image(self.pairs[index].image)

    def raw_label(self, index: int) -> np.ndarray | None:
        """The label as stored: values [H, W] or colours [H, W, 3]; None where the image has none."""
        pair = self.pairs[index]
        return None if pair.label is None else self.labels.stored(pair.label, pair.name)

    def shows_classes(self) -> bool:
        """Whether any label has a pixel of a class; reads labels until one has.

        What cannot be read counts as one: it is named where it is used.
        """
        for index in range(len(self)):
            try:
                raw = self.raw_label(index)
                if raw is None or (self.map_label(raw) != IGNORE).any():
                    return True
            except (ValueError, OSError):
                return True
        return False

    def map_label(self, raw: np.ndarray) -> np.ndarray:
        """What is stored -> class indices uint8 [H, W], 255 for ignore. Raises `ValueError` for unknown values."""
        return self.labels.meaning(raw)

    def name(self, index: int) -> str:
        return self.pairs[index].name

    def file(self, index: int) -> str:
        """What is read for the image, for people."""
        return str(self.pairs[index].image)

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
        import torch  # here, so that data sets are listed without it
        from torchvision import tv_tensors
        from torchvision.transforms.v2 import functional as F

        pixels, indices = self.read(index)
        image = tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1))
        label = None if indices is None else tv_tensors.Mask(torch.from_numpy(indices))
        if self.transform is not None:
            image, label = self.transform(image, label)
        sample: dict[str, Any] = {"image": F.to_dtype(image, torch.float32, scale=True), "index": index}
        if label is not None:
            sample["label"] = F.to_dtype(label, torch.int64)
        return sample


def file_at(parts: Sequence[SegmentationDataset], index: int) -> str:
    """The file of an image, by its index among those of all `parts`."""
    for part in parts:
        if index < len(part):
            return part.file(index)
        index -= len(part)
    raise IndexError(f"{index} more images than there are")


def _folder(root: str | Path | None) -> Path:
    if root is None:
        raise ValueError("no root is given: add --root DIR, the folder of the data set")
    path = Path(root).expanduser()
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such folder; root is the folder of the data set")
    return path
