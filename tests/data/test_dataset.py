"""Pairs, label maps and the errors of reading, on a small CamVid and on the real one where it is at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import tv_tensors

from nonlocalseg import images
from nonlocalseg.data.camvid import CamVid
from nonlocalseg.data.catalog import DATASETS
from nonlocalseg.data.dataset import LabelError, LabelMap


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
    with pytest.raises(ValueError, match="split 'training' does not exist; choose from train, val, test, trainval"):
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


def test_label_map_of_values_and_colours() -> None:
    values = LabelMap({0: 255, 7: 0, 300: 1})
    assert values(np.array([[0, 7, 300]], np.int32)).tolist() == [[255, 0, 1]]
    with pytest.raises(LabelError) as error:
        values(np.array([[8, 8, 9, 60000]], np.int32))
    assert error.value.counts == {8: 2, 9: 1, 60000: 1}
    colours = LabelMap({(0, 0, 0): 255, (255, 128, 0): 0})
    assert colours(np.array([[[0, 0, 0], [255, 128, 0]]], np.uint8)).tolist() == [[255, 0]]
    with pytest.raises(LabelError, match="colour #0000ff in 2 pixels"):
        colours(np.array([[[0, 0, 255], [0, 0, 255]]], np.uint8))
    with pytest.raises(LabelError, match="holds single values where the class map expects RGB colours"):
        colours(np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match="not both"):
        LabelMap({0: 0, (1, 2, 3): 1})
    with pytest.raises(ValueError, match="class indices go from 0 to 253"):
        LabelMap({0: 254})


@pytest.mark.shared
def test_real_camvid(shared: Path) -> None:
    for split, count in CamVid.expected_counts.items():
        assert len(CamVid(shared / "data" / "camvid", split)) == count
    sample = CamVid(shared / "data" / "camvid", "test")[7]
    assert sample["image"].shape == (3, 360, 480)
    assert set(sample["label"].unique().tolist()) <= {*range(11), 255}
