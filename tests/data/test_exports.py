"""The folder data set on exports: CVAT's "Segmentation mask 1.1", COCO instances, COCO panoptic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layouts import label_of, mask, picture, text

from nonlocalseg import images
from nonlocalseg.data import run_lengths
from nonlocalseg.data.checking import check_dataset
from nonlocalseg.data.coco_annotations import mask_of
from nonlocalseg.data.folder import Folder
from nonlocalseg.data.run_lengths import RunLengths
from nonlocalseg.data.source import DataSource

LABELMAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\ntraffic: light:250,50,83::\nroad:51,221,255::\n"
# pycocotools turns the polygon into the text, and the text into the mask
POLYGON = [1, 1, 3, 1, 3, 3, 5, 3, 5, 5, 1, 5]
COMPRESSED: RunLengths = {"size": (10, 10), "counts": ";4602N00_1"}
MASK = np.zeros((10, 10), bool)
MASK[1:3, 1:3] = True
MASK[3:5, 1:5] = True


def cvat(root: Path, labelmap: str = LABELMAP) -> None:
    text(root / "labelmap.txt", labelmap)
    for name in ("a", "b c", "deep/d"):
        picture(root / "JPEGImages" / f"{name}.jpg", 1, 3)
        label = np.array([[[0, 0, 0], [250, 50, 83], [51, 221, 255]]], np.uint8)
        images.write_image(root / "SegmentationClass" / f"{name}.png", label)
        picture(root / "SegmentationObject" / f"{name}.png", 1, 3)
    picture(root / "JPEGImages" / "not annotated.jpg", 1, 3)
    text(root / "ImageSets" / "Segmentation" / "default.txt", "a\nb c\ndeep/d\n")


def test_cvat(tmp_path: Path) -> None:
    cvat(tmp_path)
    data = Folder(tmp_path, "all")
    assert data.classes == ("background", "traffic: light", "road")
    assert data.palette == ((0, 0, 0), (250, 50, 83), (51, 221, 255))
    assert [data.name(index) for index in range(len(data))] == ["a", "b c", "deep__d"]
    for index in range(3):
        assert label_of(data, index).tolist() == [[0, 1, 2]]
    mask(tmp_path / "SegmentationClass" / "a.png", [0, 2, 1], 1, 3, palette=data.palette)
    assert label_of(data, 0).tolist() == [[0, 2, 1]]
    with pytest.raises(ValueError, match="has no split test; add images/test"):
        Folder(tmp_path, "test")
    parts = [{pair.name for pair in Folder(tmp_path, part, val_fraction=0.4).pairs} for part in ("train", "val")]
    assert parts[0] | parts[1] == {"a", "b c", "deep__d"}
    assert not parts[0] & parts[1]
    assert check_dataset(DataSource(data="folder", root=str(tmp_path))).problems == []


def test_cvat_subsets_and_ignore(tmp_path: Path) -> None:
    cvat(tmp_path, LABELMAP.replace("background", "ignore"))
    (tmp_path / "ImageSets" / "Segmentation" / "default.txt").unlink()
    text(tmp_path / "ImageSets" / "Segmentation" / "Train.txt", "a\nb c\n")
    text(tmp_path / "ImageSets" / "Segmentation" / "Validation.txt", "deep/d\n")
    data = Folder(tmp_path, "train")
    assert [pair.name for pair in data.pairs] == ["a", "b c"]
    assert data.classes == ("traffic: light", "road")
    assert label_of(data, 0).tolist() == [[255, 0, 1]]
    assert len(Folder(tmp_path, "val")) == 1
    with pytest.raises(ValueError, match="has no split test; it has train, val"):
        Folder(tmp_path, "test")
    with pytest.raises(ValueError, match="already has train, val; leave val_fraction out"):
        Folder(tmp_path, "train", val_fraction=0.5)
    text(tmp_path / "classes.yaml", "masks: {0: road}")  # says that the folder is in our own layout
    with pytest.raises(FileNotFoundError, match="images: no such folder"):
        Folder(tmp_path, "train")


@pytest.mark.parametrize(
    ("labelmap", "message"),
    [
        ("background:0,0,0::\ncar:9,9,9::\nbus:9,9,9::\n", "line 3: bus and car have one colour"),
        ("car:9,9,9::\ncar:9,9,8::\n", "line 2: car stands there twice"),
        ("car;9;9;9\n", "line 1: expected `label:red,green,blue:parts:actions`"),
        ("car:9,9,256::\n", "line 1: expected"),
        ("# nothing\n", "holds no label"),
    ],
)
def test_wrong_labelmaps(tmp_path: Path, labelmap: str, message: str) -> None:
    cvat(tmp_path, labelmap)
    with pytest.raises(ValueError, match=message) as error:
        Folder(tmp_path, "all")
    assert str(error.value).startswith(str(tmp_path / "labelmap.txt"))


def test_cvat_what_is_missing(tmp_path: Path) -> None:
    cvat(tmp_path)
    images.write_image(tmp_path / "SegmentationClass" / "a.png", np.full((1, 3, 3), 7, np.uint8))
    with pytest.raises(ValueError, match=r"a.png: label has colour #070707 in 3 pixels"):
        Folder(tmp_path, "all").read(0)
    (tmp_path / "SegmentationClass" / "a.png").unlink()
    with pytest.raises(ValueError, match=r"JPEGImages/a.jpg: no partner"):
        Folder(tmp_path, "all")
    (tmp_path / "JPEGImages").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="JPEGImages: missing; export with images"):
        Folder(tmp_path, "all")


def coco(root: Path, name: str, annotations: list[dict[str, Any]], kind: str = "instances", **more: Any) -> None:
    picture(root / "images" / name / "one.jpg", 10, 10)
    content = {
        "images": [{"id": 7, "file_name": "one.jpg", "height": 10, "width": 10}],
        "annotations": [{"image_id": 7, **annotation} for annotation in annotations],
        "categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}],
        **more,
    }
    text(root / "annotations" / f"{kind}_{name}.json", json.dumps(content))


def test_run_lengths_and_polygons() -> None:
    np.testing.assert_array_equal(run_lengths.decode(COMPRESSED, (10, 10)), MASK)
    assert run_lengths.encode(MASK) == COMPRESSED
    random = np.random.default_rng(0)
    for height, width, share in ((1, 1, 0.0), (1, 1, 1.0), (7, 3, 0.5), (40, 300, 0.001), (40, 300, 0.999)):
        mask = random.random((height, width)) < share
        np.testing.assert_array_equal(run_lengths.decode(run_lengths.encode(mask), (height, width)), mask)
    runs: RunLengths = {"size": (10, 10), "counts": [11, 4, 6, 4, 8, 2, 8, 2, 55]}
    np.testing.assert_array_equal(run_lengths.decode(runs, (10, 10)), MASK)
    np.testing.assert_array_equal(mask_of([POLYGON], (10, 10)), MASK)
    outside = mask_of([[-5, -5, 20, -5, 20, 2, -5, 2]], (10, 10))
    assert outside[:2].all()
    assert not outside[2:].any()
    assert not mask_of([], (10, 10)).any()
    for counts in ([5, 5], [105, -5], "0", "\x7f", "~" * 50, "ü"):
        with pytest.raises(ValueError, match="run-length mask"):
            run_lengths.decode({"size": (10, 10), "counts": counts}, (10, 10))
    with pytest.raises(ValueError, match=r"a mask is \(10, 10\), its image \(4, 4\)"):
        mask_of(COMPRESSED, (4, 4))


def test_coco_instances(tmp_path: Path) -> None:
    square = [[0, 0, 10, 0, 10, 10, 0, 10]]
    coco(
        tmp_path,
        "train2017",
        [
            {"category_id": 3, "segmentation": COMPRESSED, "iscrowd": 0},  # small, and first: it must lie on top
            {"category_id": 18, "segmentation": [[0, 0, 10, 0, 10, 8, 0, 8]], "iscrowd": 0},
            {"category_id": 3, "segmentation": {"size": [10, 10], "counts": [90, 10]}, "iscrowd": 1},
        ],
    )
    coco(tmp_path, "val2017", [{"category_id": 18, "segmentation": square, "iscrowd": 0}])
    data = Folder(tmp_path, "train")
    assert data.classes == ("background", "car", "dog")
    assert len(set(data.palette)) == 3
    expected = np.zeros((10, 10), np.uint8)
    expected[:, 9] = 255
    expected[:8] = 2
    expected[MASK] = 1
    np.testing.assert_array_equal(data.read(0)[1], expected)
    assert (Folder(tmp_path, "val").read(0)[1] == 2).all()
    assert len(Folder(tmp_path, "all")) == 2
    assert check_dataset(DataSource(data="folder", root=str(tmp_path))).problems == []
    with pytest.raises(ValueError, match="has no split test; it has train, val"):
        Folder(tmp_path, "test")


def test_coco_mistakes(tmp_path: Path) -> None:
    file = tmp_path / "annotations" / "instances_default.json"
    coco(tmp_path, "default", [{"category_id": 5, "segmentation": COMPRESSED}])
    with pytest.raises(ValueError, match=r"instances_default.json: one: category 5 is not among the categories"):
        Folder(tmp_path, "all").read(0)
    coco(tmp_path, "default", [{"category_id": 3}])
    with pytest.raises(
        ValueError, match=r"annotation file \(annotations.0.segmentation: Field required\); get it again"
    ):
        Folder(tmp_path, "all")
    huge = {"images": [{"id": 7, "file_name": "one.jpg", "height": 50_000, "width": 50_000}]}
    mask = {"size": [50_000, 50_000], "counts": [2_500_000_000]}
    coco(tmp_path, "default", [{"category_id": 3, "segmentation": mask}], **huge)
    with pytest.raises(ValueError, match=r"instances_default.json: 50000x50000 pixels, more than 134 million"):
        Folder(tmp_path, "all")
    coco(tmp_path, "default", [], categories=[{"id": 3, "name": "ca\x1b[31mr"}])
    with pytest.raises(ValueError, match="cannot be the name of a class"):
        Folder(tmp_path, "all")
    coco(tmp_path, "default", [])
    coco(tmp_path, "val", [], categories=[{"id": 3, "name": "car"}])
    with pytest.raises(ValueError, match=r"instances_val.json: has other categories"):
        Folder(tmp_path, "val")
    (tmp_path / "images" / "default" / "one.jpg").unlink()
    (tmp_path / "annotations" / "instances_val.json").unlink()
    with pytest.raises(ValueError, match=r"images/default/one.jpg: no partner"):
        Folder(tmp_path, "all")
    file.write_text('{"images": []}')
    with pytest.raises(ValueError, match=r"instances_default.json: not a COCO annotation file"):
        Folder(tmp_path, "all")


def test_coco_crowds(tmp_path: Path) -> None:
    """Brushes export everything as a crowd; crowds among instances are ignored, and counted."""
    left, right = {"size": [10, 10], "counts": [0, 50, 50]}, {"size": [10, 10], "counts": [50, 50]}
    crowd = {"category_id": 3, "segmentation": left, "iscrowd": 1}
    coco(tmp_path, "train", [crowd])
    coco(tmp_path, "val", [{**crowd, "segmentation": right}, {"category_id": 18, "segmentation": COMPRESSED}])
    train, val = Folder(tmp_path, "train"), Folder(tmp_path, "val")
    assert (label_of(train) == 1).sum() == 50
    assert (label_of(val)[:, 5:] == 1).all()  # as train says
    assert "all 1 annotations are crowds (iscrowd: 1), as brushes export" in train.notes[0]
    coco(tmp_path, "train", [crowd, {"category_id": 18, "segmentation": right, "iscrowd": 0}])
    data = Folder(tmp_path, "train")
    assert (label_of(data)[:, :5] == 255).all()
    assert (label_of(data)[:, 5:] == 2).all()
    said = "1 of 2 annotations are crowds (iscrowd: 1), and their pixels ignored; export them as instances"
    assert said in check_dataset(DataSource(data="folder", root=str(tmp_path))).text()


def test_coco_panoptic(tmp_path: Path) -> None:
    segments = [{"id": 300, "category_id": 18, "iscrowd": 0}, {"id": 70000, "category_id": 3, "iscrowd": 0}]
    entry = {"file_name": "one.png", "segments_info": segments}
    categories = [{"id": 18, "name": "dog", "color": [1, 2, 3]}, {"id": 3, "name": "car", "color": [4, 5, 6]}]
    coco(tmp_path, "val2017", [{"category_id": 3, "segmentation": COMPRESSED}])  # panoptic goes first
    coco(tmp_path, "val2017", [entry], "panoptic", categories=categories)
    ids = np.zeros((10, 10), np.int64)
    ids[:5], ids[5] = 300, 70000

    def write(ids: np.ndarray) -> None:
        colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
        images.write_image(tmp_path / "annotations" / "panoptic_val2017" / "one.png", colours)

    write(ids)
    data = Folder(tmp_path, "val")
    assert data.classes == ("car", "dog")
    assert data.palette == ((4, 5, 6), (1, 2, 3))
    expected = np.full((10, 10), 255)
    expected[:5], expected[5] = 1, 0
    np.testing.assert_array_equal(data.read(0)[1], expected)
    write(ids + 1)
    with pytest.raises(ValueError, match=r"one.png: segment 301 is not in panoptic_val2017.json"):
        data.read(0)


def test_images_of_many_channels(tmp_path: Path) -> None:
    from PIL import Image, TiffImagePlugin

    cvat(tmp_path)
    (tmp_path / "JPEGImages" / "a.jpg").unlink()
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    Image.fromarray(np.zeros((1, 3, 4), np.uint8)).save(tmp_path / "JPEGImages" / "a.tif", tiffinfo=tags)
    content = bytearray((tmp_path / "JPEGImages" / "a.tif").read_bytes())
    place = content.find(b"\x15\x01\x03\x00")  # the tag SamplesPerPixel
    content[place + 8] = 5
    (tmp_path / "JPEGImages" / "a.tif").write_bytes(content)
    with pytest.raises(ValueError, match=r"a.tif: 5 channels; export the three"):
        Folder(tmp_path, "all").read(0)


@pytest.mark.shared
def test_palette_masks_of_the_mmseg_sample(shared: Path, tmp_path: Path) -> None:
    """mmsegmentation's pseudo data set, copied into our own layout: palette PNG with other indices than colours."""
    sample = shared / "layouts" / "mmseg_pseudo" / "tests" / "data" / "pseudo_dataset"
    for path in sorted((sample / "imgs").iterdir()):
        name = path.stem.removesuffix("_img")
        (tmp_path / "images" / "train").mkdir(parents=True, exist_ok=True)
        (tmp_path / "masks" / "train").mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / "train" / f"{name}.jpg").write_bytes(path.read_bytes())
        (tmp_path / "masks" / "train" / f"{name}.png").write_bytes((sample / "gts" / f"{name}_gt.png").read_bytes())
    text(tmp_path / "classes.yaml", "masks: {0: a, 1: b, 2: c, 3: d}")
    data = Folder(tmp_path, "train")
    listed = (sample / "splits" / "train.txt").read_text().split() + (sample / "splits" / "val.txt").read_text().split()
    assert [data.name(index) for index in range(len(data))] == sorted(listed)
    labels = [data.read(index)[1] for index in range(5)]
    seen = [sorted(np.unique(label).tolist()) for label in labels if label is not None]
    assert seen == [[0, 2], [0, 1], [0, 2], [0, 3], [0, 3]]
