"""iSAID as its archives unpack, and as mmsegmentation's converter leaves it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from layouts import first, mask, picture

from nonlocalseg import images
from nonlocalseg.data.isaid import ISAID


@pytest.mark.parametrize("inner", ["", "images"])
def test_official(tmp_path: Path, inner: str) -> None:
    label = np.zeros((4, 6, 3), np.uint8)
    label[0, :3] = ISAID.palette[1], ISAID.palette[14], ISAID.palette[15]
    for split, name in (("train", "P0000"), ("val", "P0003"), ("test", "P0006")):
        picture(tmp_path / split / "images" / inner / f"{name}.png")
        if split != "test":
            images.write_image(tmp_path / split / "Semantic_masks" / inner / f"{name}_instance_color_RGB.png", label)
    assert [pair.name for pair in ISAID(tmp_path, "trainval").pairs] == ["P0000", "P0003"]
    assert first(ISAID(tmp_path, "val").read(0)[1], 4) == [1, 14, 15, 0]
    assert ISAID(tmp_path, "test").read(0)[1] is None
    (tmp_path / "val" / "Semantic_masks").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="Semantic_masks/images: missing; get iSAID's val semantic masks"):
        ISAID(tmp_path, "val")


def test_converted(tmp_path: Path) -> None:
    for split in ("train", "val"):
        picture(tmp_path / "img_dir" / split / "P0000_0_896_0_896.png")
        mask(tmp_path / "ann_dir" / split / "P0000_0_896_0_896_instance_color_RGB.png", [0, 15, 255])
    picture(tmp_path / "img_dir" / "test" / "P0006.png")
    assert [len(ISAID(tmp_path, split)) for split in ISAID.splits] == [1, 1, 1, 2]
    assert first(ISAID(tmp_path, "train").read(0)[1], 3) == [0, 15, 255]
