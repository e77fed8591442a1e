"""The generic folder: both layouts, and what may stand in classes.yaml."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from layouts import label_of

from nonlocalseg import images
from nonlocalseg.data.folder import Folder

VALUES = "masks: {0: ignore, 1: road, 2: car, 3: car}\npalette: {road: '#804080'}\n"


def add(root: Path, where: str, name: str, label: np.ndarray) -> None:
    images.write_image(root / "images" / where / f"{name}.jpg", np.zeros((*label.shape[:2], 3), np.uint8))
    write = images.write_mask if label.ndim == 2 else images.write_image
    write(root / "masks" / where / f"{name}.png", label)


def test_split_folders(tmp_path: Path) -> None:
    (tmp_path / "classes.yaml").write_text(VALUES)
    add(tmp_path, "train", "b", np.array([[0, 1], [2, 3]], np.uint8))
    add(tmp_path, "train/deep", "a", np.zeros((2, 2), np.uint8))
    add(tmp_path, "val", "c", np.zeros((2, 2), np.uint8))
    images.write_image(tmp_path / "images" / "test" / "d.png", np.zeros((2, 2, 3), np.uint8))
    data = Folder(tmp_path, "train")
    assert data.classes == ("road", "car")
    assert data.palette[0] == (128, 64, 128)
    assert [data.name(index) for index in range(len(data))] == ["b", "deep__a"]
    label = label_of(data)
    assert label.tolist() == [[255, 0], [1, 1]]
    assert "label" not in Folder(tmp_path, "test")[0]
    assert len(Folder(tmp_path, "all")) == 4
    with pytest.raises(ValueError, match="already has train, val, test; leave val_fraction out"):
        Folder(tmp_path, "train", val_fraction=0.5)


def test_val_fraction_depends_on_names_alone(tmp_path: Path) -> None:
    (tmp_path / "classes.yaml").write_text(VALUES)
    for number in range(0, 60, 2):
        add(tmp_path, "", f"image{number}", np.zeros((1, 1), np.uint8))

    def names(split: str) -> set[str]:
        data = Folder(tmp_path, split, val_fraction=0.3)
        return {data.name(index) for index in range(len(data))}

    train, val = names("train"), names("val")
    assert not train & val
    assert len(train | val) == 30
    assert 3 <= len(val) <= 15
    for number in range(1, 60, 2):
        add(tmp_path, "", f"image{number}", np.zeros((1, 1), np.uint8))
    assert train < names("train")
    assert val < names("val")
    fifth = [{pair.name for pair in Folder(tmp_path, split, val_fraction=0.2).pairs} for split in ("train", "val")]
    assert [{pair.name for pair in Folder(tmp_path, split).pairs} for split in ("train", "val")] == fifth
    with pytest.raises(ValueError, match="add images/test"):
        Folder(tmp_path, "test", val_fraction=0.3)


def test_colours_as_hex_or_numbers(tmp_path: Path) -> None:
    (tmp_path / "classes.yaml").write_text('masks:\n  "#000000": ignore\n  [255, 128, 0]: car\n  "#0000FF": sky\n')
    add(tmp_path, "train", "a", np.array([[[0, 0, 0], [0, 0, 255], [255, 128, 0]]], np.uint8))
    data = Folder(tmp_path, "train")
    label = label_of(data)
    assert label.tolist() == [[255, 1, 0]]
    assert data.palette == ((255, 128, 0), (0, 0, 255))


def test_one_class_of_black_and_white_masks(tmp_path: Path) -> None:
    (tmp_path / "classes.yaml").write_text("masks: {0: background, 255: polyp}")
    add(tmp_path, "train", "a", np.array([[0, 255]], np.uint8))
    label = label_of(Folder(tmp_path, "train"))
    assert label.tolist() == [[0, 1]]


def test_missing_class_file(tmp_path: Path) -> None:
    add(tmp_path, "train", "a", np.array([[0, 255]], np.uint8))
    with pytest.raises(FileNotFoundError, match=r"classes.yaml: no such file.*for example masks"):
        Folder(tmp_path, "train")
