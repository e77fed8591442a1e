"""Mapillary Vistas v1.2 as its archive unpacks, with and without the class Unlabeled."""

from __future__ import annotations

from pathlib import Path

import pytest
from layouts import first, mask, picture

from nonlocalseg.data.mapillary_vistas import CLASSES, PALETTE, MapillaryVistas


def test_official(tmp_path: Path) -> None:
    for folder in ("training", "validation", "testing"):
        picture(tmp_path / folder / "images" / "a b.jpg")
    mask(tmp_path / "training" / "v1.2" / "labels" / "a b.png", [0, 64, 65], palette=PALETTE)
    mask(tmp_path / "validation" / "labels" / "a b.png", [3, 65, 1])
    assert [len(MapillaryVistas(tmp_path, split)) for split in MapillaryVistas.splits] == [1, 1, 1, 2]
    data = MapillaryVistas(tmp_path, "train")
    assert len(data.classes) == len(data.palette) == 65
    assert first(data.read(0)[1], 3) == [0, 64, 255]
    assert first(MapillaryVistas(tmp_path, "val").read(0)[1], 3) == [3, 255, 1]
    whole = MapillaryVistas(tmp_path, "train", unlabeled=True)
    assert whole.classes == CLASSES
    assert len(whole.palette) == 66
    assert first(whole.read(0)[1], 3) == [0, 64, 65]
    assert MapillaryVistas(tmp_path, "test").read(0)[1] is None
    (tmp_path / "training" / "v1.2").rename(tmp_path / "v2.0")
    with pytest.raises(FileNotFoundError, match=r"training/v1.2/labels: missing; get Mapillary Vistas"):
        MapillaryVistas(tmp_path, "train")
