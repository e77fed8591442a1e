"""Potsdam and Vaihingen as their archives unpack, and as mmsegmentation's converter leaves them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from layouts import first, mask, picture

from nonlocalseg import images
from nonlocalseg.data.isprs import Potsdam, Vaihingen

COLOURS = [(0, 0, 0), *Potsdam.palette]


def tile(path: Path, offset: int = 0) -> None:
    """A label of 4 x 6 pixels that begins with black and the six colours, or some of them."""
    label = np.zeros((24, 3), np.uint8)
    label[: 7 - offset] = COLOURS[offset:]
    images.write_image(path, label.reshape(4, 6, 3))


def test_potsdam(tmp_path: Path) -> None:
    for number in ("2_10", "7_9", "2_13"):
        picture(tmp_path / "2_Ortho_RGB" / f"top_potsdam_{number}_RGB.tif")
        tile(tmp_path / "5_Labels_all" / f"top_potsdam_{number}_label.tif")
    assert [pair.name for pair in Potsdam(tmp_path, "train").pairs] == ["top_potsdam_2_10", "top_potsdam_7_9"]
    assert [pair.name for pair in Potsdam(tmp_path, "val").pairs] == ["top_potsdam_2_13"]
    assert len(Potsdam(tmp_path, "trainval")) == 3
    assert first(Potsdam(tmp_path, "val").read(0)[1], 8) == [255, 0, 1, 2, 3, 4, 5, 255]
    tile(tmp_path / "5_Labels_all_noBoundary" / "top_potsdam_2_13_label_noBoundary.tif", offset=1)
    assert first(Potsdam(tmp_path, "val").read(0)[1], 2) == [0, 1]
    with pytest.raises(ValueError, match=r"top_potsdam_2_10_RGB.tif: no partner"):
        Potsdam(tmp_path, "train")
    with pytest.raises(FileNotFoundError, match=r"holds nothing of 2_Ortho_RGB.zip; get it from isprs.org"):
        Potsdam(tmp_path / "5_Labels_all", "train")


def test_vaihingen(tmp_path: Path) -> None:
    for number in (1, 7, 38):
        picture(tmp_path / "ISPRS_semantic_labeling_Vaihingen" / "top" / f"top_mosaic_09cm_area{number}.tif")
        tile(tmp_path / "complete" / f"top_mosaic_09cm_area{number}.tif")
    train = Vaihingen(tmp_path, "train")
    assert [pair.name for pair in train.pairs] == ["top_mosaic_09cm_area1", "top_mosaic_09cm_area7"]
    assert first(train.read(1)[1], 3) == [255, 0, 1]
    assert [pair.name for pair in Vaihingen(tmp_path, "val").pairs] == ["top_mosaic_09cm_area38"]
    tile(tmp_path / "eroded" / "top_mosaic_09cm_area38_noBoundary.tif", offset=2)
    assert first(Vaihingen(tmp_path, "val").read(0)[1], 2) == [1, 2]


@pytest.mark.parametrize("kind", [Potsdam, Vaihingen])
def test_converted(tmp_path: Path, kind: type[Potsdam] | type[Vaihingen]) -> None:
    for split in ("train", "val"):
        picture(tmp_path / "img_dir" / split / "a_0_0_512_512.png")
        mask(tmp_path / "ann_dir" / split / "a_0_0_512_512.png", [0, 1, 6])
    assert [len(kind(tmp_path, split)) for split in kind.splits] == [1, 1, 2]
    assert first(kind(tmp_path, "val").read(0)[1], 3) == [255, 0, 5]
