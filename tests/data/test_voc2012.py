"""PASCAL VOC 2012 with SBD's .mat files, and with SBD as label images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.io
from layouts import first, mask, picture, text

from nonlocalseg.data.checking import check_dataset
from nonlocalseg.data.source import DataSource
from nonlocalseg.data.voc2012 import VOC2012

LISTS = {"train": ["2007_000032"], "val": ["2007_000033"], "trainval": ["2007_000032", "2007_000033"]}


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    voc = tmp_path / "VOCdevkit" / "VOC2012"
    for name in ("2007_000032", "2007_000033", "2008_000002", "2008_000003"):
        picture(voc / "JPEGImages" / f"{name}.jpg")
    for split, names in LISTS.items():
        text(voc / "ImageSets" / "Segmentation" / f"{split}.txt", "".join(f"{name}\n" for name in names))
    for name in LISTS["trainval"]:
        mask(voc / "SegmentationClass" / f"{name}.png", [0, 1, 20, 255], palette=VOC2012.palette)
    return voc


def sbd(root: Path) -> None:
    dataset = root / "benchmark_RELEASE" / "dataset"
    (dataset / "cls").mkdir(parents=True)
    for name in ("2007_000032", "2007_000033", "2008_000002", "2008_000003"):
        label = np.zeros((4, 6), np.uint8)
        label[0, :2] = [7, 15]
        content = {"GTcls": {"Boundaries": np.zeros((20, 1)), "Segmentation": label, "CategoriesPresent": [[7], [15]]}}
        scipy.io.savemat(dataset / "cls" / f"{name}.mat", content)
    text(dataset / "train.txt", "2007_000033\n2008_000003\n")
    text(dataset / "val.txt", "2007_000032\n2008_000002\n")


def test_official_layout(voc: Path) -> None:
    for root in (voc.parent.parent, voc.parent, voc):
        assert [len(VOC2012(root, split)) for split in ("train", "val", "trainval")] == [1, 1, 2]
    assert first(VOC2012(voc, "val").read(0)[1], 4) == [0, 1, 20, 255]
    text(voc / "ImageSets" / "Segmentation" / "test.txt", "2008_000003\n")
    assert VOC2012(voc, "test").read(0)[1] is None


def test_train_aug_takes_voc_first_and_never_val(voc: Path) -> None:
    root = voc.parent.parent
    with pytest.raises(FileNotFoundError, match=r"cls: missing; get SBD's benchmark.tgz"):
        VOC2012(root, "train_aug")
    sbd(root)
    data = VOC2012(root, "train_aug")
    assert [pair.name for pair in data.pairs] == ["2007_000032", "2008_000002", "2008_000003"]
    assert first(data.read(0)[1], 4) == [0, 1, 20, 255]  # VOC's label, not SBD's
    assert first(data.read(1)[1], 3) == [7, 15, 0]
    path = root / "benchmark_RELEASE" / "dataset" / "cls" / "2008_000002.mat"
    scipy.io.savemat(path, {"GTinst": {"Segmentation": np.zeros((4, 6))}})
    with pytest.raises(ValueError, match=r"2008_000002.mat: has no"):
        data.read(1)


def test_train_aug_of_label_images(voc: Path) -> None:
    for name in ("2007_000032", "2007_000033", "2008_000002"):
        mask(voc / "SegmentationClassAug" / f"{name}.png", [3])
    data = VOC2012(voc, "train_aug")
    assert [pair.name for pair in data.pairs] == ["2007_000032", "2008_000002"]
    assert first(data.read(0)[1], 2) == [0, 1]
    assert first(data.read(1)[1], 1) == [3]


def test_labels_saved_as_colours(voc: Path) -> None:
    picture(voc / "SegmentationClass" / "2007_000032.png")
    with pytest.raises(ValueError, match="holds RGB colours where the class map expects single values"):
        VOC2012(voc, "train").read(0)


def test_palette_is_vocs() -> None:
    """Bit k of a class index goes to bit 7 - k // 3 of channel k mod 3."""
    for index, colour in enumerate(VOC2012.palette):
        expected = [sum((index >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3)) for channel in range(3)]
        assert list(colour) == expected


def test_check_data_reads_sbd(voc: Path) -> None:
    root = voc.parent.parent
    source = DataSource(data="voc2012", root=str(root))
    assert [(part.split, part.images) for part in check_dataset(source).splits] == [("train", 1), ("val", 1)]
    sbd(root)
    report = check_dataset(source)
    assert [(part.split, part.images) for part in report.splits] == [("train_aug", 3), ("val", 1)]
    assert not report.problems
    path = root / "benchmark_RELEASE" / "dataset" / "cls" / "2008_000002.mat"
    path.write_bytes(path.read_bytes()[:100])
    (problem,) = check_dataset(source).problems
    assert (problem.name, problem.file) == ("unreadable", str(path))
    scipy.io.savemat(path, {"GTcls": {"Segmentation": "a text"}})
    assert "where a label is whole numbers" in check_dataset(source).problems[0].message
