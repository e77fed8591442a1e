"""CamVid as published: 960x720, 32 colours, SegNet's split by frame (test_dataset.py has SegNet's layout)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from layouts import label_of, picture

from nonlocalseg import images
from nonlocalseg.data.camvid import LABELS, CamVid

FRAMES = {
    "train": ["0001TP_006690", "0001TP_008520", "0006R0_f00930", "0016E5_07920", "0016E5_08190"],
    "val": ["0016E5_07959", "0016E5_08159"],
    "test": ["0001TP_008550", "Seq05VD_f00000"],
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in (name for frames in FRAMES.values() for name in frames):
        picture(tmp_path / "701_StillsRaw_full" / f"{name}.png", 2, 3)
        label = np.array([[[128, 128, 128], [64, 192, 0], [128, 0, 192]], [[0, 0, 192], [0, 128, 192], [0, 0, 0]]])
        images.write_image(tmp_path / "LabeledApproved_full" / f"{name}_L.png", label.astype(np.uint8))
    return tmp_path


def test_original(root: Path) -> None:
    for split, frames in FRAMES.items():
        data = CamVid(root, split)
        assert [pair.name for pair in data.pairs] == frames
        label = label_of(data)
        assert label.tolist() == [[0, 1, 3], [4, 10, 255]]  # sky, wall as building, lane; sidewalk, bicyclist, void
    assert len(CamVid(root, "trainval")) == 7
    (root / "LabeledApproved_full" / "0016E5_07959_L.png").unlink()
    with pytest.raises(ValueError, match=r"0016E5_07959.png: no partner"):
        CamVid(root, "val")
    assert len(CamVid(root, "test")) == 2
    bad = np.full((2, 3, 3), 7, np.uint8)
    images.write_image(root / "LabeledApproved_full" / "0001TP_006690_L.png", bad)
    with pytest.raises(ValueError, match="colour #070707 in 6 pixels"):
        CamVid(root, "train").read(0)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds neither train .* nor 701_StillsRaw_full"):
        CamVid(tmp_path, "train")
    (tmp_path / "701_StillsRaw_full").mkdir()
    with pytest.raises(FileNotFoundError, match=r"LabeledApproved_full: missing; get LabeledApproved_full.zip"):
        CamVid(tmp_path, "train")


@pytest.mark.shared
def test_facts_real_split_and_coloured_sample(shared: Path, tmp_path: Path) -> None:
    facts = json.loads((shared / "layouts" / "facts.json").read_text())["camvid"]
    assert [list(colour) for colour in CamVid.palette] == facts["palette11"]
    groups = enumerate(facts["group32_to_11_mathworks"])
    expected = {tuple(facts["colours32"][name]): index for index, names in groups for name in names}
    assert LABELS.colours == {**expected, (0, 0, 0): 255}
    (tmp_path / "LabeledApproved_full").mkdir()
    (tmp_path / "701_StillsRaw_full").mkdir()
    for split in ("train", "val", "test"):
        for path in (shared / "data" / "camvid" / split).iterdir():
            (tmp_path / "701_StillsRaw_full" / f"{path.stem}.png").touch()
            (tmp_path / "LabeledApproved_full" / f"{path.stem}_L.png").touch()
    for split in ("train", "val", "test"):
        ours = {pair.name for pair in CamVid(tmp_path, split).pairs}
        assert ours == {path.stem for path in (shared / "data" / "camvid" / split).iterdir()}
    sample = shared / "layouts" / "datumaro" / "tests" / "assets" / "camvid_dataset"
    shutil.copytree(sample, tmp_path / "sample")  # SegNet's folders with colours in them
    label = label_of(CamVid(tmp_path / "sample", "train"))
    assert label.tolist() == [[10, 10, 3, 10, 10]]
