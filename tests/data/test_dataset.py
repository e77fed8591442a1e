"""Pairs and the errors of reading, on a small CamVid and on the real one where it is at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from layouts import first, mask, picture
from torchvision import tv_tensors

from nonlocalseg import images
from nonlocalseg.data.camvid import CamVid
from nonlocalseg.data.catalog import DATASETS
from nonlocalseg.data.dataset import Discovery, Labels, SegmentationDataset
from nonlocalseg.data.layouts import subfolder
from nonlocalseg.data.pairing import match_folders
from nonlocalseg.data.source import DataSource
from nonlocalseg.data.tables import colours, names
from nonlocalseg.labels import IGNORE, LabelMap


@pytest.fixture
def root(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for split, count in (("train", 3), ("val", 2), ("test", 1)):
        for number in range(count):
            image = generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)
            images.write_image(tmp_path / split / f"{split}{number}.{'jpg' if number else 'png'}", image)
            label = generator.integers(0, 12, (6, 8), dtype=np.uint8)
            images.write_mask(tmp_path / f"{split}annot" / f"{split}{number}.png", label)
    return tmp_path


def test_camvid_layout(root: Path) -> None:
    assert [len(CamVid(root, split)) for split in ("train", "val", "test", "trainval")] == [3, 2, 1, 5]
    data = DATASETS["camvid"](root=root, split="train", transform=None)
    assert [data.name(index) for index in range(3)] == ["train0", "train1", "train2"]
    image, label = data.read(0)
    stored = images.read_mask(root / "trainannot" / "train0.png")
    np.testing.assert_array_equal(image, images.read_image(root / "train" / "train0.png"))
    assert label is not None
    assert (label[stored == 11] == 255).all()
    np.testing.assert_array_equal(label[stored < 11], stored[stored < 11])
    sample = data[0]
    assert isinstance(sample["image"], tv_tensors.Image)
    assert isinstance(sample["label"], tv_tensors.Mask)
    assert (sample["image"].dtype, sample["label"].dtype, sample["index"]) == (torch.float32, torch.int64, 0)
    torch.testing.assert_close(torch.Tensor(sample["image"]), images.to_tensor(image))


def test_errors_name_the_file(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        CamVid(root / "nowhere", "train")
    with pytest.raises(ValueError, match="unknown split 'training': did you mean 'train'"):
        CamVid(root, "training")
    images.write_mask(root / "trainannot" / "train0.png", np.full((6, 8), 40))
    with pytest.raises(ValueError, match=r"train0.png: label has value 40 in 48 pixels"):
        CamVid(root, "train")[0]
    images.write_mask(root / "trainannot" / "train1.png", np.zeros((6, 9), np.uint8))
    with pytest.raises(ValueError, match=r"train1.png: label is 9x6, its image 8x6 \(width x height\)"):
        CamVid(root, "train")[1]
    (root / "train" / "train2.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"train2.jpg: not an image"):
        CamVid(root, "train")[2]
    (root / "val" / "val0.png").unlink()
    with pytest.raises(ValueError, match=r"valannot/val0.png: no partner"):
        CamVid(root, "val")
    assert [path.name for path in CamVid(root, "val", strict=False).unmatched] == ["val0.png"]
    images.write_image(root / "test" / "test0.jpg", np.zeros((6, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r"has the same name as"):
        CamVid(root, "test")


class Rooms(SegmentationDataset):
    classes = names("floor, wall")
    palette = colours("804000 c0c0c0")
    labels = Labels(LabelMap(values={0: IGNORE, 1: 0, 2: 1}))
    splits = ("train", "test")

    def discover(self) -> Discovery:
        places = (subfolder(self.root, kind, self.split) for kind in ("photos", "labels"))
        return self.found(match_folders(*places))


def test_a_data_set_says_where_its_files_are_and_what_labels_mean(tmp_path: Path) -> None:
    picture(tmp_path / "photos" / "train" / "hall.jpg")
    mask(tmp_path / "labels" / "train" / "hall.png", [0, 1, 2])
    data = Rooms(tmp_path)
    assert data.name(0) == "hall"
    assert first(data.read(0)[1], 3) == [255, 0, 1]
    assert Rooms.known_classes(Rooms.Options()) == data.classes == ("floor", "wall")
    with pytest.raises(ValueError, match="Rooms has no options; leave 'lights' out"):
        Rooms(tmp_path, lights=True)
    with pytest.raises(FileNotFoundError, match="photos/test: no such folder"):
        Rooms(tmp_path, "test")


def test_finding_files_changes_nothing(tmp_path: Path) -> None:
    for name in ("a", "b"):
        picture(tmp_path / "trainannot" / f"{name}.png")
        picture(tmp_path / "train" / f"{name}.png")
        picture(tmp_path / "images" / f"{name}.png")
        mask(tmp_path / "masks" / f"{name}.png", [0, 1])
        picture(tmp_path / "RGB" / "train" / f"{name}.png")
        mask(tmp_path / "Label" / "train" / f"{name}.png", [1])
        picture(tmp_path / "leftImg8bit" / "train" / "ulm" / f"ulm_{name}_leftImg8bit.png")
        mask(tmp_path / "gtFine" / "train" / "ulm" / f"ulm_{name}_gtFine_labelTrainIds.png", [1])
    images.write_image(tmp_path / "images" / "alone.png", np.zeros((2, 2, 3), np.uint8))
    (tmp_path / "classes.yaml").write_text("masks: {0: a, 1: b}")
    for data in ("camvid", "folder", "nyudv2", "cityscapes", "synthetic"):
        options: dict[str, object] = {"val_fraction": 1e-9} if data == "folder" else {}
        source = DataSource(data=data, root=str(tmp_path), split="train", data_options=options)
        dataset = source.open_split("train", strict=False)
        before = dict(vars(dataset))
        found, again = dataset.discover(), dataset.discover()
        assert vars(dataset) == before
        assert (found.pairs, found.unmatched, found.classes) == (again.pairs, again.unmatched, again.classes)
        assert dataset.pairs == found.pairs
        assert len(found.unmatched) == (data == "folder")
        for name in vars(found):
            with pytest.raises(AttributeError, match=f"cannot assign to field '{name}'"):
                setattr(found, name, ())


@pytest.mark.shared
def test_real_camvid(shared: Path) -> None:
    for split, count in CamVid.expected_counts.items():
        assert len(CamVid(shared / "data" / "camvid", split)) == count
    sample = CamVid(shared / "data" / "camvid", "test")[7]
    assert sample["image"].shape == (3, 360, 480)
    assert set(sample["label"].unique().tolist()) <= {*range(11), 255}
