"""PASCAL VOC 2012: background and 20 objects, with SBD's labels for `train_aug` (Hariharan et al. 2011)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from nonlocalseg.data.dataset import DatasetOptions, Discovery, Labels, SegmentationDataset, read_stored
from nonlocalseg.data.layouts import check_stored, field_of, inside, read_list, require
from nonlocalseg.data.pairing import Matched, by_suffix, match_listed, unlabelled
from nonlocalseg.data.tables import colours, names
from nonlocalseg.labels import IGNORE, LabelMap

_SOURCE = "VOCtrainval_11-May-2012.tar from host.robots.ox.ac.uk/pascal/VOC/voc2012"
_TEST_SOURCE = "the test archive from host.robots.ox.ac.uk:8080 (with registration)"
_SBD_SOURCE = "SBD's benchmark.tgz (Semantic Boundaries Dataset, home.bharathh.info/pubs/codes/SBD)"


def _stored(label: Path, name: str) -> np.ndarray:
    """A label image, or SBD's .mat file."""
    if label.suffix != ".mat":
        return read_stored(label, name)
    content = field_of(label, "GTcls")
    if "Segmentation" not in (content.dtype.names or ()) or not content.size:
        raise ValueError(f"{label}: has no GTcls.Segmentation; unpack SBD again")
    return check_stored(label, np.asarray(content["Segmentation"].flat[0]))


class VOC2012(SegmentationDataset):
    """`VOCdevkit/VOC2012` as the archive unpacks, in `root`, and for `train_aug` SBD beside it:

        VOCdevkit/VOC2012/{JPEGImages,SegmentationClass,ImageSets/Segmentation}
        benchmark_RELEASE/dataset/{cls/NAME.mat,train.txt,val.txt}
        VOCdevkit/VOC2012/SegmentationClassAug/NAME.png      (SBD as label images; used where SBD itself is missing)

    Values 0..20 are the classes, 255 is the border drawn around objects (SBD has none). `train_aug` is VOC's train with
    VOC's labels, and what SBD has beyond VOC's train and val: 1464 + 9118 = 10582 images.
    """

    classes = names("""
        background, aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, dog, horse,
        motorbike, person, pottedplant, sheep, sofa, train, tvmonitor
    """)
    palette = colours("""
        000000 800000 008000 808000 000080 800080 008080 808080 400000 c00000 408000 c08000 400080 c00080 408080 c08080
        004000 804000 00c000 80c000 004080
    """)
    splits = ("train", "val", "test", "trainval", "train_aug")
    expected_counts: ClassVar[Mapping[str, int]] = {
        "train": 1464,
        "val": 1449,
        "test": 1456,
        "trainval": 2913,
        "train_aug": 10582,
    }
    labels = Labels(LabelMap(values={**{index: index for index in range(21)}, 255: IGNORE}), _stored)

    @classmethod
    def disjoint_splits(cls, root: Path, options: DatasetOptions) -> tuple[str, ...]:
        """`train_aug`, which holds train, where SBD is there."""
        there = _sbd(root).is_dir() or (_voc(root) / "SegmentationClassAug").is_dir()
        return ("train_aug" if there else "train", "val")

    def discover(self) -> Discovery:
        voc = _voc(self.root)
        if self.split == "test":
            return self.found(_test(voc))
        pictures = by_suffix(require(voc, ["JPEGImages"], _SOURCE), "*", ".jpg")
        labels = by_suffix(require(voc, ["SegmentationClass"], _SOURCE), "*", ".png")
        part = "train" if self.split == "train_aug" else self.split
        listed_in = require(voc, [f"ImageSets/Segmentation/{part}.txt"], _SOURCE)
        listed = read_list(listed_in)
        if self.split == "train_aug":
            val = read_list(require(voc, ["ImageSets/Segmentation/val.txt"], _SOURCE))
            more = self._more_labels(voc, {*listed, *val})
            listed += sorted(more)
            labels = {**labels, **more}
        return self.found(match_listed(listed, pictures, labels, listed_in))

    def _more_labels(self, voc: Path, known: set[str]) -> dict[str, Path]:
        """The labels of SBD for the images that VOC 2012 has in neither train nor val."""
        sbd = _sbd(self.root).parent
        if not (sbd / "cls").is_dir() and (voc / "SegmentationClassAug").is_dir():
            labels = by_suffix(voc / "SegmentationClassAug", "*", ".png")
        else:
            source = f"{_SBD_SOURCE} for train_aug"
            found = by_suffix(require(sbd, ["cls"], source), "*", ".mat")
            listed = {name for part in ("train", "val") for name in read_list(require(sbd, [f"{part}.txt"], source))}
            labels = {name: path for name, path in found.items() if name in listed}
        return {name: path for name, path in labels.items() if name not in known}


def _voc(root: Path) -> Path:
    return inside(root, "VOCdevkit/VOC2012", "VOC2012")


def _sbd(root: Path) -> Path:
    """The folder of SBD's labels, whether or not it is there."""
    return inside(root, "benchmark_RELEASE/dataset", "sbd/benchmark_RELEASE/dataset", "dataset") / "cls"


def _test(voc: Path) -> Matched:
    """The images of the test archive."""
    pictures = by_suffix(require(voc, ["JPEGImages"], _TEST_SOURCE), "*", ".jpg")
    listed = read_list(require(voc, ["ImageSets/Segmentation/test.txt"], _TEST_SOURCE))
    if missing := [name for name in listed if name not in pictures]:
        raise FileNotFoundError(f"{voc / 'JPEGImages' / missing[0]}.jpg: missing; get {_TEST_SOURCE}")
    return unlabelled((name, pictures[name]) for name in listed)
