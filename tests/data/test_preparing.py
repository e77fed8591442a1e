"""`prepare`: label images from trainval_merged.json and from polygons, resumed, and checked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layouts import first, picture

from nonlocalseg import images
from nonlocalseg.data.cityscapes import Cityscapes
from nonlocalseg.data.pascal_context import CLASSES, PASCALContext, write_merged_label
from nonlocalseg.data.preparing import prepare


def runs(label: np.ndarray) -> dict[str, Any]:
    """bool [H, W] -> COCO's runs, down the columns."""
    flat = label.T.reshape(-1)
    changes = np.flatnonzero(np.diff(np.concatenate([[False], flat]).astype(int)))
    return {"size": list(label.shape), "counts": np.diff(np.array([0, *changes, flat.size])).tolist()}


def merged(root: Path, **change: Any) -> None:
    whole, part = np.ones((4, 6), bool), np.zeros((4, 6), bool)
    part[0, :2] = True
    content: dict[str, Any] = {"images": [], "annos_segmentation": []}
    for number, (name, phase) in enumerate(
        {"2008_000002": "train", "2008_000003": "val", "2008_000004": "test"}.items()
    ):
        picture(root / "VOCdevkit" / "VOC2010" / "JPEGImages" / f"{name}.jpg")
        content["images"].append(
            {"image_id": number, "file_name": f"{name}.jpg", "phase": phase, "height": 4, "width": 6}
        )
        for category, mask in ((420, whole), (2, part), (3, part & np.roll(part, 1, axis=1))):
            item = {"id": len(content["annos_segmentation"]), "image_id": number, "category_id": category}
            content["annos_segmentation"].append({**item, "segmentation": runs(mask), "parts": []})
    (root / "trainval_merged.json").write_text(json.dumps({**content, **change}))


def test_pascal_context(tmp_path: Path) -> None:
    merged(tmp_path)
    seen: list[int] = []

    def progress(finished: Any, count: int) -> Any:
        seen.append(count)
        return finished

    result = prepare("pascal_context", tmp_path, workers=1, progress=progress)
    assert (result.written, result.kept, result.pairs) == (4, 0, {"train": 1, "val": 1})
    tree, aeroplane = CLASSES.index("tree"), CLASSES.index("aeroplane")
    label = PASCALContext(tmp_path, "train", background=True).read(0)[1]
    assert first(label, 3) == [aeroplane, 0, tree]  # air conditioner, 3, is none of the 59
    target = tmp_path / "VOCdevkit" / "VOC2010" / "SegmentationClassContext" / "2008_000003.png"
    target.unlink()
    result = prepare("pascal_context", tmp_path, workers=1, progress=progress)
    assert (result.written, result.kept) == (1, 3)
    assert seen == [4, 1]
    assert target.exists()
    assert result.text() == (
        "1 files written, 3 were there; image/label pairs: 1 in train (published: 4998), 1 in val (published: 5105)"
    )


def test_polygons_in_parallel(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for number in range(2):
            name = f"ulm_{number:06}_000019"
            picture(tmp_path / "leftImg8bit" / split / "ulm" / f"{name}_leftImg8bit.png")
            annotation = tmp_path / "gtFine" / split / "ulm" / f"{name}_gtFine_polygons.json"
            annotation.parent.mkdir(parents=True, exist_ok=True)
            objects = [{"label": "sky", "polygon": [[0, 0], [5, 0], [5, 3], [0, 3]]}]
            annotation.write_text(json.dumps({"imgHeight": 4, "imgWidth": 6, "objects": objects}))
    result = prepare("cityscapes", tmp_path, workers=2)
    assert (result.written, result.kept, result.pairs) == (4, 0, {"train": 2, "val": 2})
    data = Cityscapes(tmp_path, "val")
    assert str(data.pairs[0].label).endswith("_gtFine_labelIds.png")
    assert (data.read(0)[1] == 10).all()


def test_nothing_to_prepare_is_only_checked(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        picture(tmp_path / split / "a.png")
        images.write_mask(tmp_path / f"{split}annot" / "a.png", np.zeros((4, 6), np.uint8))
    result = prepare("camvid", tmp_path)
    assert result.pairs == {"train": 1, "val": 1, "test": 1}
    assert result.text().startswith("nothing to do; ")
    shutil.rmtree(tmp_path / "val")
    assert f"\nsplit val is not there: {tmp_path / 'val'}: " in prepare("camvid", tmp_path).text()


def test_another_form_that_needs_no_preparation(tmp_path: Path) -> None:
    picture(tmp_path / "leftImg8bit" / "val" / "ulm" / "ulm_000000_000019_leftImg8bit.png")
    images.write_mask(
        tmp_path / "gtFine" / "val" / "ulm" / "ulm_000000_000019_gtFine_labelIds.png", np.zeros((4, 6), np.uint8)
    )
    result = prepare("cityscapes", tmp_path)
    assert (result.written, result.kept, result.pairs) == (0, 0, {"val": 1})


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown data set 'kitti': choose from"):
        prepare("kitti", tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        prepare("cityscapes", tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"trainval_merged.json: missing; get it from"):
        prepare("pascal_context", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"holds no \*_polygons.json; get gtFine_trainvaltest.zip"):
        prepare("cityscapes", tmp_path)
    merged(tmp_path, images=[{"image_id": 1}])
    with pytest.raises(ValueError, match=r"trainval_merged.json: not the annotations of PASCAL in Detail"):
        prepare("pascal_context", tmp_path)
    wrong = tmp_path / "2008_000002.png"
    with pytest.raises(ValueError, match=r"2008_000002: a mask is \(3, 3\), its image \(4, 6\)"):
        write_merged_label(wrong, (4, 6), [(2, runs(np.ones((3, 3), bool)))])
    assert not wrong.exists()
