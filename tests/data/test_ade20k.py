"""ADE20K's SceneParse150 in its official layout, its off-by-one traps, and the full ADE20K in its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from layouts import first, mask, picture

from nonlocalseg.data.ade20k import ADE20K
from nonlocalseg.data.checking import check_dataset
from nonlocalseg.data.source import DataSource

ROOT = "ADEChallengeData2016"


def add(root: Path, part: str, name: str, values: list[int]) -> None:
    picture(root / ROOT / "images" / part / f"{name}.jpg")
    mask(root / ROOT / "annotations" / part / f"{name}.png", values)


def test_official_layout(tmp_path: Path) -> None:
    add(tmp_path, "training", "ADE_train_00000001", [0, 1, 2, 150])
    add(tmp_path, "validation", "ADE_val_00000001", [3])
    picture(tmp_path / "release_test" / "testing" / "ADE_test_00000001.jpg")
    for root in (tmp_path, tmp_path / ROOT):  # the folder it was unpacked in, and the one it made
        assert first(ADE20K(root, "train").read(0)[1], 4) == [255, 0, 1, 149]
        assert ADE20K(root, "val").name(0) == "ADE_val_00000001"
        assert len(ADE20K(root, "trainval")) == 2
        assert ADE20K(root, "test").read(0)[1] is None
    assert (ADE20K.classes[0], ADE20K.classes[149], len(ADE20K.classes)) == ("wall", "flag", 150)
    assert len(set(ADE20K.palette)) == 150


def test_labels_that_were_moved_down(tmp_path: Path) -> None:
    add(tmp_path, "training", "ADE_train_00000001", [255, 0, 1, 149])
    add(tmp_path, "validation", "ADE_val_00000001", [0, 1, 2, 3])
    with pytest.raises(ValueError, match=r"ADE_train_00000001.png: label has value 255 in 21 pixels"):
        ADE20K(tmp_path, "train").read(0)
    report = check_dataset(DataSource(data="ade20k", root=str(tmp_path)))
    assert [problem.name for problem in report.problems] == ["labels off by one"]
    add(tmp_path, "training", "ADE_train_00000001", [254, 1])
    with pytest.raises(ValueError, match="value 254"):
        ADE20K(tmp_path, "train").read(0)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"images/training: missing; get ADEChallengeData2016.zip from scene"):
        ADE20K(tmp_path, "train")
    with pytest.raises(FileNotFoundError, match=r"release_test.zip"):
        ADE20K(tmp_path, "test")
    picture(tmp_path / "images" / "training" / "a" / "abbey" / "ADE_train_00000970_seg.png")
    with pytest.raises(FileNotFoundError, match="is the full ADE20K"):
        ADE20K(tmp_path, "train")


@pytest.mark.shared
def test_facts_and_datumaro_sample(shared: Path) -> None:
    facts = json.loads((shared / "layouts" / "facts.json").read_text())["ade20k"]
    assert list(ADE20K.classes) == facts["classes"]
    changed = [index for index, colour in enumerate(ADE20K.palette) if list(colour) != facts["palette"][index]]
    assert [ADE20K.classes[index] for index in changed] == ["skyscraper"]
    with pytest.raises(FileNotFoundError, match=r"is the full ADE20K .* get ADEChallengeData2016.zip"):
        ADE20K(shared / "layouts" / "datumaro" / "tests" / "assets" / "ade20k2017_dataset" / "dataset", "train")
