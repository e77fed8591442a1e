"""Each usual mistake is made on purpose in a folder and must come back by its name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nonlocalseg import images
from nonlocalseg.data.checking import check_dataset
from nonlocalseg.data.source import DataSource


def build(root: Path, labels: list[np.ndarray], classes: str, suffix: str = ".png") -> Path:
    (root / "classes.yaml").write_text(classes)
    for number, label in enumerate(labels):
        split = ("train", "val")[number % 2]
        images.write_image(root / "images" / split / f"{number}.png", np.zeros((*label.shape[:2], 3), np.uint8))
        if label.ndim == 3 or suffix != ".png":
            colours = label if label.ndim == 3 else np.repeat(label[..., None], 3, 2)
            images.write_image(root / "masks" / split / f"{number}{suffix}", colours)
        else:
            images.write_mask(root / "masks" / split / f"{number}.png", label)
    return root


def stripes(*values: int) -> np.ndarray:
    return np.repeat(np.array([values], np.uint8), 4, axis=0)


def source(root: Path, data: str = "folder", **options: object) -> DataSource:
    return DataSource(data=data, root=str(root), data_options=options)


def kinds(root: Path) -> set[str]:
    return {problem.name for problem in check_dataset(source(root)).problems}


def test_a_good_folder(tmp_path: Path) -> None:
    root = build(tmp_path, [stripes(0, 1, 2, 2), stripes(0, 1, 1, 2)], "masks: {0: ignore, 1: a, 2: b}")
    report = check_dataset(source(root), progress=list)
    assert report.problems == []
    assert [(split.split, split.images, split.labels) for split in report.splits] == [("train", 1, 1), ("val", 1, 1)]
    assert report.frequencies == [0.5, 0.5]
    assert report.splits[0].sizes == {"4x4": 1}
    assert "no problems" in report.text()
    assert json.loads(json.dumps(report.as_dict()))["splits"][0]["pixels"] == [4, 8]


def test_black_and_white_masks(tmp_path: Path) -> None:
    assert kinds(build(tmp_path, [stripes(0, 255)] * 2, "masks: {0: background, 1: polyp}")) == {"0/255 mask"}


def test_labels_one_too_high(tmp_path: Path) -> None:
    labels = [stripes(0, 1, 2, 3), stripes(1, 2, 3, 3)]
    assert kinds(build(tmp_path, labels, "masks: {0: a, 1: b, 2: c}")) == {"labels off by one"}


def test_labels_one_too_low(tmp_path: Path) -> None:
    labels = [stripes(0, 1, 2, 255), stripes(1, 2, 0, 255)]
    assert kinds(build(tmp_path, labels, "masks: {0: ignore, 1: a, 2: b, 3: c}")) == {"labels off by one"}


def test_unknown_values_with_file_and_count(tmp_path: Path) -> None:
    report = check_dataset(source(build(tmp_path, [stripes(0, 1, 9), stripes(0, 1, 1)], "masks: {0: a, 1: b}")))
    (problem,) = report.problems
    assert problem.name == "unknown value"
    assert problem.file.endswith("masks/train/0.png")
    assert problem.message.startswith("value 9 in 4 pixels")


def test_unknown_colours(tmp_path: Path) -> None:
    label = np.zeros((2, 3, 3), np.uint8)
    label[0, 0] = (1, 2, 3)
    report = check_dataset(source(build(tmp_path, [label, label], 'masks: {"#000000": a}')))
    assert [problem.message.split(";")[0] for problem in report.problems] == ["colour #010203 in 1 pixels"] * 2


def test_palette_against_colours(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert kinds(build(tmp_path / "a", [stripes(0, 1)] * 2, 'masks: {"#000000": a}')) == {"values instead of RGB"}
    colours = np.zeros((2, 3, 3), np.uint8)
    assert kinds(build(tmp_path / "b", [colours] * 2, "masks: {0: a}")) == {"RGB instead of values"}


def test_jpeg_masks_are_told(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 2, (16, 16, 3), dtype=np.uint8) * 255
    report = check_dataset(source(build(tmp_path, [noise] * 2, 'masks: {"#000000": a, "#ffffff": b}', ".jpg")))
    assert "JPEG" in report.problems[0].message


def test_a_broken_folder_is_read_to_its_end(tmp_path: Path) -> None:
    root = build(tmp_path, [stripes(0, 1)] * 8, "masks: {0: a, 1: b}")
    (root / "images" / "train" / "0.png").write_bytes(b"broken")
    (root / "masks" / "train" / "2.png").write_bytes(b"")
    (root / "masks" / "train" / "4.png").unlink()
    images.write_mask(root / "masks" / "val" / "1.png", np.zeros((9, 9), np.uint8))
    (root / "images" / "val" / "3.png").unlink()
    report = check_dataset(source(root))
    found = sorted((problem.name, Path(problem.file).relative_to(root).as_posix()) for problem in report.problems)
    assert found == [
        ("missing partner", "images/train/4.png"),
        ("missing partner", "masks/val/3.png"),
        ("size mismatch", "masks/val/1.png"),
        ("unreadable", "images/train/0.png"),
        ("unreadable", "masks/train/2.png"),
    ]
    assert [split.images for split in report.splits] == [3, 3]
    assert "5 problems" in report.text()
    assert "\n" not in "".join(problem.message for problem in report.problems)


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    assert kinds(tmp_path) == {"cannot be opened"}
    assert kinds(tmp_path / "gone") == {"cannot be opened"}
    assert [problem.name for problem in check_dataset(source(tmp_path, "camvid")).problems] == ["cannot be opened"] * 3
    with pytest.raises(ValueError, match="unknown data set 'camvit': did you mean 'camvid'"):
        check_dataset(source(tmp_path, "camvit"))
    with pytest.raises(ValueError, match="unknown split of camvid 'vall': did you mean 'val'"):
        check_dataset(source(tmp_path, "camvid"), splits=("vall",))
    with pytest.raises(ValueError, match="data_options: CamVid has no options; leave 'size' out"):
        check_dataset(source(tmp_path, "camvid", size=3))
    for part in ("images/train", "masks/train", "images/val", "masks/val"):
        (tmp_path / part).mkdir(parents=True)
    (tmp_path / "classes.yaml").write_text("masks: {0: a}")
    assert kinds(tmp_path) == {"empty"}


def test_flat_folder_and_synthetic(tmp_path: Path) -> None:
    (tmp_path / "classes.yaml").write_text("masks: {0: a, 1: b}")
    for number in range(9):
        images.write_image(tmp_path / "images" / f"{number}.png", np.zeros((4, 2, 3), np.uint8))
        images.write_mask(tmp_path / "masks" / f"{number}.png", stripes(0, 1))
    assert check_dataset(source(tmp_path)).splits[0].images == 9
    halves = check_dataset(source(tmp_path, val_fraction=0.5)).splits
    assert [split.split for split in halves] == ["train", "val"]
    assert sum(split.images for split in halves) == 9
    report = check_dataset(DataSource(data="synthetic", data_options={"length": 4}))
    assert not report.problems
    assert len(report.splits) == 3


@pytest.mark.shared
def test_real_camvid_is_clean(shared: Path) -> None:
    report = check_dataset(source(shared / "data" / "camvid", "camvid"), splits=("val",))
    assert not report.problems
    assert not report.notes
    assert report.splits[0].images == 101


def test_a_data_set_without_one_usable_mask_is_reported(tmp_path: Path) -> None:
    """0/255 masks with a class map that knows neither: every problem is named, and nothing divides by zero."""
    root = build(tmp_path, [np.full((8, 8), 255, np.uint8)] * 2, "masks: {1: road, 2: car}")
    assert "0/255 mask: 2" in check_dataset(source(root)).text()


def smooth(edges: np.ndarray) -> np.ndarray:
    """A mask as drawing programs save it, with a ramp along each edge."""
    from scipy.ndimage import uniform_filter

    return uniform_filter(edges.astype(float), (3, 3, 1)[: edges.ndim], mode="nearest").round().astype(np.uint8)


def blob(inside: int | list[int], outside: int | list[int]) -> np.ndarray:
    label = np.full((24, 24, np.size(inside)), outside, np.uint8)
    label[6:18, 5:15] = inside
    return label if np.size(inside) > 1 else label[..., 0]


@pytest.mark.parametrize(
    ("label", "classes", "found"),
    [
        (smooth(blob(255, 0)), "masks: {0: a, 255: b}", {"anti-aliased mask"}),
        (smooth(blob(255, 0)), "masks: {0: a, 1: b}", {"anti-aliased mask", "0/255 mask"}),
        (smooth(blob([200, 0, 90], [0, 64, 10])), 'masks: {"#c8005a": a, "#00400a": b}', {"anti-aliased mask"}),
        (blob(255, 0), "masks: {0: a, 1: b}", {"0/255 mask"}),
        (blob(9, 7), "masks: {0: a, 1: b}", {"unknown value"}),
    ],
)
def test_masks_with_smoothed_edges(tmp_path: Path, label: np.ndarray, classes: str, found: set[str]) -> None:
    report = check_dataset(source(build(tmp_path, [label] * 2, classes)))
    assert {problem.name for problem in report.problems} == found
    assert all(";" in problem.message for problem in report.problems)
    if "anti-aliased mask" in found:
        assert "export without anti-aliasing, and resize masks with nearest" in report.text()


def test_jpeg_masks_are_one_problem(tmp_path: Path) -> None:
    """Whatever they are called, and even where every blurred value happens to be a class."""
    root = build(tmp_path, [blob(255, 0)] * 6, "masks: {0: a, 255: b}", ".jpg")
    (root / "masks" / "val" / "1.jpg").rename(root / "masks" / "val" / "1.png")
    problems = check_dataset(source(root)).problems
    assert [problem.name for problem in problems if problem.name != "RGB instead of values"] == ["JPEG masks"] * 2
    assert "3 label images are JPEG, which blurs values and cannot hold labels; export" in problems[0].message
    (tmp_path / "grey").mkdir()
    grey = build(tmp_path / "grey", [blob(255, 0)] * 2, "masks: {0: a, 255: b}")
    for split, name in (("train", "0"), ("val", "1")):
        mask = grey / "masks" / split / f"{name}.png"
        Image.fromarray(smooth(images.read_mask(mask))).save(mask, format="JPEG", quality=30)
    assert kinds(grey) == {"JPEG masks"}


@pytest.mark.parametrize(
    ("image", "label"),
    [("{}", "{}_mask"), ("{}", "gt-{}"), ("{}", "a{}b"), ("{}_sat", "{}"), ("deep/{}", "deep/mask_{}")],
)
def test_one_word_more_on_one_side(tmp_path: Path, image: str, label: str) -> None:
    (tmp_path / "classes.yaml").write_text("masks: {0: a, 1: b}")
    for split in ("train", "val"):
        for number in range(9, 12):
            pixels = np.full((4, 2, 3), number + len(split), np.uint8)
            images.write_image(tmp_path / "images" / split / f"{image.format(number)}.jpg", pixels)
            images.write_mask(tmp_path / "masks" / split / f"{label.format(number)}.png", stripes(0, 1))
    report = check_dataset(source(tmp_path))
    assert not report.problems
    assert [split.labels for split in report.splits] == [3, 3]
    first, second = (Path(name.format(10)).name for name in (image, label))
    assert f"note: labels are called differently: {second}.png was taken for the label of {first}.jpg" in report.text()
    assert len(source(tmp_path).labelled("train on")[0]) == 3
    (tmp_path / "masks" / "train" / f"{label.format(9)}.png").unlink()
    assert kinds(tmp_path) == {"missing partner"}


def test_names_that_have_nothing_in_common(tmp_path: Path) -> None:
    (tmp_path / "classes.yaml").write_text("masks: {0: a, 1: b}")
    for number in range(3):
        images.write_image(tmp_path / "images" / f"img_{number}.jpg", np.zeros((4, 2, 3), np.uint8))
        images.write_mask(tmp_path / "masks" / f"mask_{number}.png", stripes(0, 1))
    said = r"share a name \(img_0.jpg, mask_2.png\); name both alike up to the ending"
    with pytest.raises(ValueError, match=said):
        DataSource(data="folder", root=str(tmp_path), split="all").open()
    assert "name both alike" in check_dataset(source(tmp_path)).text()


def test_nothing_labelled(tmp_path: Path) -> None:
    labels = [stripes(0, 0), stripes(0, 1)]
    report = check_dataset(source(build(tmp_path, labels, "masks: {0: ignore, 1: a}")))
    assert [problem.name for problem in report.problems] == ["nothing labelled"]
    assert "every pixel of train is ignored; give the values" in report.text()


def test_mostly_ignored(tmp_path: Path) -> None:
    labels = [stripes(0, 0, 0, 1), stripes(0, 1, 1, 1)]
    report = check_dataset(source(build(tmp_path, labels, "masks: {0: ignore, 1: a}")))
    assert not report.problems
    assert "note: 75 % of the pixels of train are ignored" in report.text()
    assert "of val are ignored" not in report.text()


def test_the_same_picture_in_two_splits(tmp_path: Path) -> None:
    root = build(tmp_path, [stripes(0, 1, 1), stripes(0, 1)] * 2, "masks: {0: a, 1: b}")
    assert "another split" not in check_dataset(source(root)).text()  # twice in one split is no matter
    pixels = images.read_image(root / "images" / "train" / "0.png")
    images.write_image(root / "images" / "val" / "1.bmp", pixels)
    (root / "images" / "val" / "1.png").unlink()
    images.write_mask(root / "masks" / "val" / "1.png", stripes(0, 1, 1))
    report = check_dataset(source(root))
    assert not report.problems
    assert "note: 1 image of val is in another split as well" in report.text()
    assert "val/1.bmp = " in report.text()


@pytest.mark.parametrize("count", [0, 1])
def test_hardly_any_image(tmp_path: Path, count: int) -> None:
    (tmp_path / "classes.yaml").write_text("masks: {0: a, 1: b}")
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    for _ in range(count):
        images.write_image(tmp_path / "images" / "0.png", np.zeros((4, 2, 3), np.uint8))
        images.write_mask(tmp_path / "masks" / "0.png", stripes(0, 1))
    assert kinds(tmp_path) == (set() if count else {"empty"})
    report = check_dataset(source(tmp_path, val_fraction=0.2))
    assert [problem.name for problem in report.problems] == (["cannot be opened"] if count else ["empty"] * 2)
    assert ("leaves no image in" in report.text()) == bool(count)
