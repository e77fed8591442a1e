"""COCO-Stuff: both versions of the 10K .mat files, and the 164K label images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from layouts import first, mask, picture, text

from nonlocalseg.data.coco_stuff import CLASSES, IDS, PALETTE, COCOStuff10K, COCOStuff164K


def write_mat(path: Path, values: list[int], count: int) -> None:
    stored = np.full((4, 6), values[0], np.uint8 if count == 172 else np.float64)
    stored.reshape(-1)[: len(values)] = values
    content = {"S": stored, "captions": np.array(["a"], object), "regionMapStuff": np.ones((4, 6), np.uint16)}
    if count:
        content["names"] = np.array([f"name {i}" for i in range(count)], object).reshape(-1, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, content, do_compression=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("COCO_train2014_000000000077", "COCO_train2014_000000000081", "COCO_train2014_000000000149"):
        picture(tmp_path / "images" / f"{name}.jpg")
        write_mat(tmp_path / "annotations" / f"{name}.mat", [0, 1, 13, 92, 182], 182)
    text(tmp_path / "imageLists" / "train.txt", "COCO_train2014_000000000149\nCOCO_train2014_000000000077\n")
    text(tmp_path / "imageLists" / "test.txt", "COCO_train2014_000000000081\n")
    return tmp_path


def test_both_versions_of_10k(root: Path) -> None:
    train, test = COCOStuff10K(root, "train"), COCOStuff10K(root, "test")
    assert [pair.name[-3:] for pair in train.pairs] == ["077", "149"]
    classes = [255, CLASSES.index("person"), CLASSES.index("stop sign"), CLASSES.index("banner"), CLASSES.index("wood")]
    assert first(test.read(0)[1], 5) == classes
    # the same pixels in version 1.0: 1 is unlabelled, then 80 things, then 91 stuff classes without gaps
    path = root / "annotations" / "COCO_train2014_000000000081.mat"
    write_mat(path, [1, 2, 13, 82, 172], 172)
    assert first(test.read(0)[1], 5) == classes
    write_mat(path, [0, 182], 0)  # without names: only version 1.1 has these
    assert first(test.read(0)[1], 2) == [255, 170]


def test_wrong_10k_files(root: Path) -> None:
    path = root / "annotations" / "COCO_train2014_000000000081.mat"
    data = COCOStuff10K(root, "test")
    write_mat(path, [0, 2], 172)
    with pytest.raises(ValueError, match=r"081.mat: has 172 names and values 0 to 2; expected 182 names"):
        data.read(0)
    write_mat(path, [1, 171], 0)
    with pytest.raises(ValueError, match="its values fit both versions"):
        data.read(0)
    write_mat(path, [0, 12], 182)  # one of the 11 ids that never occur: another convention
    with pytest.raises(ValueError, match="label has value 12 in 1 pixels"):
        data.read(0)
    scipy.io.savemat(path, {"LabelMap": np.zeros((4, 6))})
    with pytest.raises(ValueError, match="has no field S"):
        data.read(0)
    path.write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"081.mat: not a MATLAB file"):
        data.read(0)
    path.unlink()
    with pytest.raises(ValueError, match=r"081.jpg: no partner"):
        COCOStuff10K(root, "test")
    text(root / "imageLists" / "test.txt", "COCO_train2014_000000000999\n")
    with pytest.raises(FileNotFoundError, match="lists COCO_train2014_000000000999, which has neither"):
        COCOStuff10K(root, "test")
    with pytest.raises(FileNotFoundError, match=r"images: missing; get cocostuff-10k-v1.1.zip"):
        COCOStuff10K(root / "images", "train")


@pytest.mark.parametrize(("pictures", "labels"), [("images/", "annotations"), ("", "stuffthingmaps_trainval2017")])
def test_164k(tmp_path: Path, pictures: str, labels: str) -> None:
    picture(tmp_path / f"{pictures}val2017" / "000000000139.jpg")
    mask(tmp_path / labels / "val2017" / "000000000139.png", [0, 12, 91, 181, 255])
    mask(tmp_path / labels / "val2017" / "000000000139_labelTrainIds.png", [0])
    data = COCOStuff164K(tmp_path, "val")
    assert first(data.read(0)[1], 5) == [0, CLASSES.index("stop sign"), CLASSES.index("banner"), 170, 255]
    mask(tmp_path / labels / "val2017" / "000000000139.png", [0, 182])  # ids that start at 1
    with pytest.raises(ValueError, match="value 182"):
        data.read(0)
    mask(tmp_path / labels / "val2017" / "000000000139.png", [0, 254])
    with pytest.raises(ValueError, match="value 254"):
        data.read(0)
    with pytest.raises(FileNotFoundError, match=r"train2017: missing; get train2017.zip from cocodataset.org"):
        COCOStuff164K(tmp_path, "train")


def test_palette_is_unambiguous() -> None:
    assert len(set(PALETTE)) == len(CLASSES) == len(IDS) == 171


@pytest.mark.shared
def test_facts(shared: Path) -> None:
    facts = json.loads((shared / "layouts" / "facts.json").read_text())["coco_stuff"]
    assert list(CLASSES) == facts["classes"]
    assert list(IDS) == facts["kept_ids_1based"]
    lines = (shared / "layouts" / "cocostuff-labels.txt").read_text().splitlines()
    listed = {int(number): name for number, name in (line.split(": ") for line in lines)}
    assert [listed[number] for number in IDS] == list(CLASSES)
    changed = [index for index, colour in enumerate(PALETTE) if list(colour) != facts["palette_mmseg"][index]]
    assert len(changed) == 171 - len({tuple(colour) for colour in facts["palette_mmseg"]})
