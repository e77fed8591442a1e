"""Cityscapes in its official layout: label ids, train ids, polygons, coarse labels, the test split."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from layouts import first, mask, picture

from nonlocalseg import images
from nonlocalseg.data.checking import check_dataset
from nonlocalseg.data.cityscapes import LABELS, Cityscapes, draw_polygons
from nonlocalseg.data.dataset import DatasetOptions
from nonlocalseg.data.source import DataSource


def image(root: Path, split: str, name: str) -> None:
    picture(root / "leftImg8bit" / split / name.split("_")[0] / f"{name}_leftImg8bit.png")


def label(root: Path, split: str, name: str, ending: str, values: list[int], kind: str = "gtFine") -> None:
    mask(root / kind / split / name.split("_")[0] / f"{name}_{kind}_{ending}.png", values)


def annotation(path: Path, *objects: tuple[str, list[list[int]]], **more: object) -> None:
    listed = [{"label": name, "polygon": polygon, **more} for name, polygon in objects]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"imgHeight": 4, "imgWidth": 6, "objects": listed}))


def test_label_ids(tmp_path: Path) -> None:
    for name in ("aachen_000001_000019", "bochum_000000_000313"):
        image(tmp_path, "train", name)
        label(tmp_path, "train", name, "labelIds", list(range(24)))
        label(tmp_path, "train", name, "instanceIds", [26001])  # beside it in the archive, and not to be taken
        picture(tmp_path / "gtFine" / "train" / name.split("_")[0] / f"{name}_gtFine_color.png")
    data = Cityscapes(tmp_path, "train")
    assert [data.name(i) for i in range(2)] == ["aachen_000001_000019", "bochum_000000_000313"]
    ignored = [255] * 7
    expected = [*ignored, 0, 1, 255, 255, 2, 3, 4, 255, 255, 255, 5, 255, 6, 7, 8, 9, 10]
    assert first(data.read(0)[1], 24) == expected
    label(tmp_path, "train", "aachen_000001_000019", "labelIds", [24, 25, 26, 27, 28, 29, 30, 31, 32, 33])
    assert first(data.read(0)[1], 10) == [11, 12, 13, 14, 15, 255, 255, 16, 17, 18]
    assert data.label_ids == (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


def test_train_ids_and_trap(tmp_path: Path) -> None:
    name = "ulm_000000_000019"
    image(tmp_path, "val", name)
    label(tmp_path, "val", name, "labelTrainIds", [0, 18, 255, 19])
    assert first(Cityscapes(tmp_path, "val").read(0)[1], 4) == [0, 18, 255, 255]
    label(tmp_path, "val", name, "labelTrainIds", [254, 0])  # 255 wrapped round by a subtraction
    with pytest.raises(ValueError, match=r"labelTrainIds.png: label has value 254 in 23 pixels"):
        Cityscapes(tmp_path, "val").read(0)
    label(tmp_path, "val", name, "labelIds", [0, 18, 255])  # train ids under the other name
    with pytest.raises(ValueError, match=r"labelIds.png: label has value 255 in 1 pixels"):
        Cityscapes(tmp_path, "val").read(0)


def test_polygons(tmp_path: Path) -> None:
    name = "ulm_000000_000019"
    image(tmp_path, "train", name)
    path = tmp_path / "gtFine" / "train" / "ulm" / f"{name}_gtFine_polygons.json"
    box = [[0, 0], [5, 0], [5, 1], [0, 1]]
    annotation(path, ("road", box), ("cargroup", [[0, 0], [1, 0], [1, 0], [0, 0]]), ("license plate", box))
    expected = np.full((4, 6), 255)
    expected[:2] = 0
    expected[0, :2] = 13
    found = Cityscapes(tmp_path, "train").read(0)[1]
    np.testing.assert_array_equal(found, expected)
    assert draw_polygons(path)[0, 0] == LABELS.index("car") == 26
    annotation(path, ("road", box), deleted=1)
    assert (draw_polygons(path) == 0).all()
    annotation(path, ("rode", box))
    with pytest.raises(ValueError, match=r"polygons.json: not a Cityscapes annotation \(unknown label 'rode'\)"):
        Cityscapes(tmp_path, "train").read(0)
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"not a Cityscapes annotation \(imgWidth: Field required\)"):
        draw_polygons(path)


def test_coarse_test_and_trainval(tmp_path: Path) -> None:
    image(tmp_path, "train_extra", "augsburg_000000_000000")
    label(tmp_path, "train_extra", "augsburg_000000_000000", "labelIds", [7, 0], kind="gtCoarse")
    assert first(Cityscapes(tmp_path, "train_extra").read(0)[1], 2) == [0, 255]
    assert Cityscapes.disjoint_splits(tmp_path, DatasetOptions()) == ("train_extra",)
    for split in ("train", "val", "test"):
        image(tmp_path, split, f"{split}city_000000_000001")
        label(tmp_path, split, f"{split}city_000000_000001", "labelIds", [7])
    assert "label" not in Cityscapes(tmp_path, "test")[0]
    assert [pair.name[:5] for pair in Cityscapes(tmp_path, "trainval").pairs] == ["train", "valci"]
    assert set(Cityscapes.disjoint_splits(tmp_path, DatasetOptions())) == {"train", "val", "test", "train_extra"}
    report = check_dataset(DataSource(data="cityscapes", root=str(tmp_path)))
    assert report.problems == []
    assert "train has 1 images, the published data set 2975" in report.notes


def test_train_ids_in_one_part_alone(tmp_path: Path) -> None:
    for split, ending in (("train", "labelIds"), ("val", "labelTrainIds")):
        image(tmp_path, split, "ulm_000000_000019")
        label(tmp_path, split, "ulm_000000_000019", ending, [7])
    with pytest.raises(ValueError, match=r"gtFine: labelTrainIds.png in one of train and val alone"):
        Cityscapes(tmp_path, "trainval")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"leftImg8bit/val: missing; get leftImg8bit_trainvaltest.zip from city"
    ):
        Cityscapes(tmp_path, "val")
    with pytest.raises(FileNotFoundError, match=r"leftImg8bit_trainextra.zip from cityscapes-dataset.com"):
        Cityscapes(tmp_path, "train_extra")
    image(tmp_path, "val", "ulm_000000_000019")
    image(tmp_path, "val", "ulm_000001_000019")
    with pytest.raises(FileNotFoundError, match=r"gtFine/val: missing; get gtFine_trainvaltest.zip from cityscapes"):
        Cityscapes(tmp_path, "val")
    picture(tmp_path / "gtFine" / "val" / "ulm" / "ulm_000000_000019_gtFine_color.png")
    with pytest.raises(FileNotFoundError, match=r"holds no \*_gtFine_labelIds.png"):
        Cityscapes(tmp_path, "val")
    label(tmp_path, "val", "ulm_000000_000019", "labelIds", [7])
    with pytest.raises(ValueError, match=r"ulm_000001_000019_leftImg8bit.png: no partner"):
        Cityscapes(tmp_path, "val")


@pytest.mark.shared
def test_facts_and_datumaro_sample(shared: Path, tmp_path: Path) -> None:
    facts = json.loads((shared / "layouts" / "facts.json").read_text())["cityscapes"]
    assert list(Cityscapes.classes) == facts["classes"]
    assert [list(colour) for colour in Cityscapes.palette] == facts["palette"]
    meaning = {int(key): value for key, value in facts["id_to_train"].items() if int(key) >= 0}
    assert Cityscapes.by_id.values == meaning
    assert [entry[1] for entry in facts["all_labels"]][:-1] == list(LABELS)
    sample = shared / "layouts" / "datumaro" / "tests" / "assets" / "cityscapes_dataset" / "train_dataset"
    shutil.copytree(sample / "imgsFine" / "leftImg8bit", tmp_path / "leftImg8bit")
    shutil.copytree(sample / "gtFine", tmp_path / "gtFine")
    data = Cityscapes(tmp_path, "train")
    stored = images.read_mask(next((tmp_path / "gtFine" / "train").rglob("*labelTrainIds.png")))
    np.testing.assert_array_equal(data.read(0)[1], np.where(stored == 19, 255, stored))
    assert len(Cityscapes(tmp_path, "test")) == 2
