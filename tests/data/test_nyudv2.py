"""NYU Depth V2: the labelled .mat file with MATLAB's axes, label images, and the published split and mapping."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from layouts import first, mask, picture, text

from nonlocalseg.data.nyudv2 import CLASS_OF_894, LABELED, SPLITS, NYUDv2


def write_h5(path: Path, pictures: np.ndarray, labels: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        file["images"], file["labels"] = pictures, labels


def test_labelled_mat(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    pictures = generator.integers(0, 256, (1449, 4, 6, 3), dtype=np.uint8)
    labels = generator.integers(0, 895, (1449, 4, 6)).astype(np.uint16)
    write_h5(tmp_path / LABELED, pictures.transpose(0, 3, 2, 1), labels.transpose(0, 2, 1))
    train, test = NYUDv2(tmp_path, "train"), NYUDv2(tmp_path, "test")
    assert (len(train), len(test)) == (795, 654)
    assert [train.name(0), test.name(0), test.name(2)] == ["0003", "0001", "0009"]
    image, label = test.read(2)
    np.testing.assert_array_equal(image, pictures[8])
    expected = np.where(labels[8] == 0, 255, np.array([0, *CLASS_OF_894])[labels[8]].astype(int) - 1)
    np.testing.assert_array_equal(label, expected)
    assert test[2]["image"].shape == (3, 4, 6)


def test_wrong_axes_and_broken_files(tmp_path: Path) -> None:
    path = tmp_path / LABELED
    pictures, labels = np.zeros((1449, 3, 6, 4), np.uint8), np.zeros((1449, 6, 4), np.uint16)
    for images, other in (
        (pictures.transpose(0, 3, 2, 1), labels.transpose(0, 2, 1)),  # put upright by another program
        (pictures.transpose(0, 1, 3, 2), labels.transpose(0, 2, 1)),  # half upright
        (pictures.transpose(3, 2, 1, 0), labels.transpose(2, 1, 0)),  # as MATLAB shows it
        (pictures, labels.transpose(0, 2, 1)),
        (pictures[:10], labels[:10]),
    ):
        path.unlink(missing_ok=True)
        write_h5(path, images, other)
        with pytest.raises(
            ValueError, match=r"nyu_depth_v2_labeled.mat: .*get nyu_depth_v2_labeled.mat from cs.nyu.edu"
        ):
            NYUDv2(tmp_path, "train")
    path.write_bytes(b"half a download")
    with pytest.raises(ValueError, match=r"labeled.mat: .*get nyu_depth_v2_labeled"):
        NYUDv2(tmp_path, "train")
    write_h5(path, pictures, labels + 895)
    with pytest.raises(ValueError, match="value 895 in 24 pixels"):
        NYUDv2(tmp_path, "train").read(0)


def test_label_images(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"labeled.mat: missing, and no folders RGB and Label"):
        NYUDv2(tmp_path, "train")
    for name in ("0", "1", "2"):
        picture(tmp_path / "RGB" / f"{name}.jpg")
        mask(tmp_path / "Label" / f"{name}.png", [0, 1, 40])
    with pytest.raises(FileNotFoundError, match=r"train.txt: missing, and no folders"):
        NYUDv2(tmp_path, "train")
    text(tmp_path / "train.txt", "RGB/0.jpg\tLabel/0.png\nRGB/2.jpg\tLabel/2.png\n")
    text(tmp_path / "test.txt", "1.jpg\n")
    assert [pair.name for pair in NYUDv2(tmp_path, "train").pairs] == ["0", "2"]
    assert first(NYUDv2(tmp_path, "test").read(0)[1], 3) == [255, 0, 39]
    mask(tmp_path / "Label" / "1.png", [0, 39, 255])  # already moved down by one
    with pytest.raises(ValueError, match="value 255"):
        NYUDv2(tmp_path, "test").read(0)


def test_label_images_in_split_folders(tmp_path: Path) -> None:
    for split, name in (("train", "nyu_0003"), ("test", "nyu_0001")):
        picture(tmp_path / "images" / split / f"{name}.png")
        mask(tmp_path / "label40" / split / f"{name}.png", [5])
    assert NYUDv2(tmp_path, "test").name(0) == "nyu_0001"
    assert first(NYUDv2(tmp_path, "train").read(0)[1], 1) == [4]


@pytest.mark.shared
def test_published_mapping_and_split(shared: Path) -> None:
    layouts = shared / "layouts"
    mapping = scipy.io.loadmat(str(layouts / "classMapping40.mat"), squeeze_me=True)
    assert list(CLASS_OF_894) == mapping["mapClass"].tolist()
    assert list(NYUDv2.classes) == mapping["className"].tolist()
    splits = scipy.io.loadmat(str(layouts / "splits.mat"), squeeze_me=True)
    assert list(SPLITS["train"]) == splits["trainNdxs"].tolist()
    assert list(SPLITS["test"]) == splits["testNdxs"].tolist()
    assert sorted(SPLITS["train"] + SPLITS["test"]) == list(range(1, 1450))
    facts = json.loads((layouts / "facts.json").read_text())["nyuv2"]
    assert [list(colour) for colour in NYUDv2.palette] == facts["palette"]
    with tarfile.open(layouts / "nyuv2_test_class13.tgz") as archive:
        numbers = sorted(int(Path(name).stem.rpartition("_")[2]) for name in archive.getnames())
    assert numbers == list(SPLITS["test"])


@pytest.mark.shared
def test_thirteen_class_sample(shared: Path, tmp_path: Path) -> None:
    """Real label images, of the coarser 13 classes, read through the layout of label images: upright and whole."""
    with tarfile.open(shared / "layouts" / "nyuv2_test_class13.tgz") as archive:
        for member in archive.getmembers()[:2]:
            archive.extract(member, tmp_path / "label" / "test", filter="data")
            picture(tmp_path / "image" / "test" / Path(member.name).with_suffix(".png").name, 480, 640)
    data = NYUDv2(tmp_path, "test")
    image, label = data.read(1)
    assert label is not None
    assert image.shape[:2] == label.shape == (480, 640)
    assert {*range(13), 255} >= set(np.unique(label).tolist())
