"""PASCAL Context: label images, the original .mat files, the published 59 labels, and 59 or 60 classes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from layouts import first, mask, picture, text

from nonlocalseg.data.pascal_context import CLASSES, IDS, PASCALContext

TRAIN, VAL = ["2008_000002", "2008_000004"], ["2008_000003"]


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    voc = tmp_path / "VOCdevkit" / "VOC2010"
    for name in (*TRAIN, *VAL, "2008_000001"):
        picture(voc / "JPEGImages" / f"{name}.jpg")
    for lists in ("Main", "SegmentationContext"):
        text(voc / "ImageSets" / lists / "train.txt", "".join(f"{name}\n" for name in TRAIN))
        text(voc / "ImageSets" / lists / "val.txt", "".join(f"{name}\n" for name in VAL))
    return voc


def write_mat(path: Path, values: list[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    label = np.full((4, 6), values[0], np.uint16)
    label.reshape(-1)[: len(values)] = values
    scipy.io.savemat(path, {"LabelMap": label})


def test_label_images(voc: Path) -> None:
    for name in (*TRAIN, *VAL):
        mask(voc / "SegmentationClassContext" / f"{name}.png", [0, 1, 59])
    root = voc.parent.parent
    data, with_background = PASCALContext(root, "train"), PASCALContext(root, "train", background=True)
    assert [pair.name for pair in data.pairs] == TRAIN
    assert (len(data.classes), len(data.palette), data.classes[0]) == (59, 59, "aeroplane")
    assert first(data.read(0)[1], 3) == [255, 0, 58]
    assert (len(with_background.classes), with_background.classes[0]) == (60, "background")
    assert first(with_background.read(0)[1], 3) == [0, 1, 59]
    assert len(PASCALContext(voc, "trainval")) == 3
    mask(voc / "SegmentationClassContext" / f"{TRAIN[0]}.png", [255, 0, 58])  # moved down by one
    for moved in (data, with_background):
        with pytest.raises(ValueError, match="value 255 in 22 pixels"):
            moved.read(0)


def test_original_mat(voc: Path) -> None:
    for name in (*TRAIN, *VAL):
        write_mat(voc.parent.parent / "trainval" / f"{name}.mat", [1, 2, 284, 458, 459, 0])
    root = voc.parent.parent
    aeroplane, person, wood = (CLASSES.index(name) for name in ("aeroplane", "person", "wood"))
    label = PASCALContext(root, "val", background=True).read(0)[1]
    assert first(label, 6) == [0, aeroplane, person, wood, 0, 0]
    label = PASCALContext(root, "val").read(0)[1]
    assert first(label, 6) == [255, aeroplane - 1, person - 1, wood - 1, 255, 255]
    write_mat(root / "trainval" / f"{VAL[0]}.mat", [460])
    with pytest.raises(ValueError, match=r"2008_000003.mat: label has value 460"):
        PASCALContext(root, "val").read(0)
    scipy.io.savemat(root / "trainval" / f"{VAL[0]}.mat", {"S": np.zeros((4, 6))})
    with pytest.raises(ValueError, match="has no field LabelMap"):
        PASCALContext(root, "val").read(0)


def test_published_59_labels_have_another_order(voc: Path) -> None:
    for name in (*TRAIN, *VAL):
        mask(voc / "59_context_labels" / f"{name}.png", [0, 1, 2, 11, 21, 52, 59], palette=[(0, 0, 0)] * 60)
    named = ("aeroplane", "bicycle", "table", "bag", "bedclothes", "wood")
    label = PASCALContext(voc, "train", background=True).read(0)[1]
    assert first(label, 7) == [0, *(CLASSES.index(name) for name in named)]


def test_what_is_missing_is_named(voc: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"trainval: missing; get trainval.tar.gz from cs.stanford.edu"):
        PASCALContext(tmp_path, "train")
    (tmp_path / "trainval_merged.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"run `nonlocalseg prepare pascal_context --root"):
        PASCALContext(tmp_path, "train")
    mask(voc / "SegmentationClassContext" / f"{TRAIN[0]}.png", [1])
    with pytest.raises(ValueError, match=r"2008_000004.jpg: no partner"):
        PASCALContext(tmp_path, "train")
    (voc / "ImageSets" / "SegmentationContext" / "train.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"SegmentationContext/train.txt: missing; get VOCtrainval_03-May-2010"):
        PASCALContext(tmp_path, "train")
    with pytest.raises(FileNotFoundError, match=r"JPEGImages: missing; get VOCtrainval_03-May-2010"):
        PASCALContext(voc / "ImageSets", "train")


@pytest.mark.shared
def test_facts(shared: Path) -> None:
    facts = json.loads((shared / "layouts" / "facts.json").read_text())["pascal_context"]
    assert list(CLASSES) == facts["classes60"]
    assert list(IDS) == facts["raw459_ids_for_classes60"]
    lines = (shared / "layouts" / "fcn-classes-400.txt").read_text().splitlines()
    listed = {int(number): name for number, name in (line.split(": ") for line in lines)}
    assert [listed[number] for number in IDS[1:]] == list(CLASSES[1:])
