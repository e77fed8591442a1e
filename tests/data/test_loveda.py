"""LoveDA as its archives unpack, and as mmsegmentation's converter leaves it."""

from __future__ import annotations

from pathlib import Path

import pytest
from layouts import first, mask, picture

from nonlocalseg.data.loveda import LoveDA


@pytest.fixture
def root(tmp_path: Path) -> Path:
    number = 0
    for part in ("Train", "Val", "Test"):
        for area in ("Urban", "Rural"):
            picture(tmp_path / part / area / "images_png" / f"{number}.png")
            if part != "Test":
                mask(tmp_path / part / area / "masks_png" / f"{number}.png", [0, 1, 7])
            number += 1
    return tmp_path


def test_official(root: Path) -> None:
    names = {split: [pair.name for pair in LoveDA(root, split).pairs] for split in LoveDA.splits}
    assert names == {"train": ["0", "1"], "val": ["2", "3"], "test": ["4", "5"], "trainval": ["0", "1", "2", "3"]}
    assert first(LoveDA(root, "train").read(0)[1], 3) == [255, 0, 6]
    assert LoveDA(root, "test").read(0)[1] is None
    (root / "Train" / "Rural" / "masks_png" / "1.png").unlink()
    with pytest.raises(ValueError, match=r"images_png/1.png: no partner"):
        LoveDA(root, "train")
    with pytest.raises(FileNotFoundError, match=r"Val: missing; get Val.zip from zenodo"):
        LoveDA(root / "Train", "val")


def test_converted(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        picture(tmp_path / "img_dir" / split / "7.png")
        if split != "test":
            mask(tmp_path / "ann_dir" / split / "7.png", [0, 2])
    assert [len(LoveDA(tmp_path, split)) for split in LoveDA.splits] == [1, 1, 1, 2]
    assert first(LoveDA(tmp_path, "val").read(0)[1], 2) == [255, 1]
    assert LoveDA(tmp_path, "test").pairs[0].label is None
