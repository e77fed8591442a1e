"""CamVid in SegNet's split and layout: 11 classes, 480x360 (Brostow et al. 2009; Badrinarayanan et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from nonlocalseg import images
from nonlocalseg.data.dataset import IGNORE, LabelMap, Pair, SegmentationDataset, pair_by_stem, subfolder


class CamVid(SegmentationDataset):
    """`train/ trainannot/ val/ valannot/ test/ testannot/` below `root`; label values 0..10, 11 is void.

    The val sequence (0016E5) also appears in train, and 62 of the 233 test images come from one that does.
    """

    classes = (
        "Sky",
        "Building",
        "Pole",
        "Road",
        "Pavement",
        "Tree",
        "SignSymbol",
        "Fence",
        "Car",
        "Pedestrian",
        "Bicyclist",
    )
    palette = (
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (60, 40, 222),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    )
    splits = ("train", "val", "test", "trainval")
    label_map = LabelMap({**{value: value for value in range(11)}, 11: IGNORE})
    expected_counts: ClassVar[Mapping[str, int]] = {"train": 367, "val": 101, "test": 233, "trainval": 468}

    def find_pairs(self) -> tuple[list[Pair], list[Path]]:
        pairs: list[Pair] = []
        unmatched: list[Path] = []
        for part in ("train", "val") if self.split == "trainval" else (self.split,):
            image_root, label_root = subfolder(self.root, part), subfolder(self.root, f"{part}annot")
            files = images.images_below(image_root), images.images_below(label_root)
            found, alone = pair_by_stem(*files, image_root, label_root)
            pairs += found
            unmatched += alone
        return pairs, unmatched
