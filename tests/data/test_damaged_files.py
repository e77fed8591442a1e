"""Files that were changed at random: whatever is in them, the answer is one line that names a file, never a crash."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from layouts import mask, picture, text

from nonlocalseg import images
from nonlocalseg.data.checking import check_dataset
from nonlocalseg.data.source import DataSource

ODD: list[Any] = [None, True, -1, 0, 1e308, 50_000, 2**31, 10**30, "", "x", "\x1b]0;x\x07", "\0", "../..", [], {}, [[]]]
ODD += [{"size": [50_000, 50_000], "counts": [2_500_000_000]}, [[0, 0, 5, 5, 1e300, 7]], [None], "a" * 5000, "ü", 1.5]
CLASSES = "masks:\n  0: ignore\n  1: road\n  [2, 3, 4]: car\npalette: {road: '#804080'}\n"
LABELMAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad:51,221,255::\n"


def folder(root: Path) -> tuple[DataSource, Path]:
    picture(root / "images" / "a.png")
    mask(root / "masks" / "a.png", [0, 1])
    text(root / "classes.yaml", CLASSES.replace("[2, 3, 4]", "2"))
    return DataSource(data="folder", root=str(root), split="all"), root / "classes.yaml"


def colours(root: Path) -> tuple[DataSource, Path]:
    source, path = folder(root)
    text(path, CLASSES.replace("0:", "[0, 0, 0]:").replace("1:", "'#010101':"))
    picture(root / "masks" / "a.png")
    return source, path


def cvat(root: Path) -> tuple[DataSource, Path]:
    picture(root / "JPEGImages" / "a.jpg")
    images.write_image(root / "SegmentationClass" / "a.png", np.zeros((4, 6, 3), np.uint8))
    text(root / "ImageSets" / "Segmentation" / "default.txt", "a\n")
    text(root / "labelmap.txt", LABELMAP)
    return DataSource(data="folder", root=str(root), split="all"), root / "labelmap.txt"


def cvat_list(root: Path) -> tuple[DataSource, Path]:
    return cvat(root)[0], root / "ImageSets" / "Segmentation" / "default.txt"


def coco(root: Path, kind: str, annotations: list[dict[str, Any]]) -> tuple[DataSource, Path]:
    picture(root / "images" / "a.jpg")
    content = {
        "images": [{"id": 7, "file_name": "a.jpg", "height": 4, "width": 6}],
        "annotations": [{"image_id": 7, **annotation} for annotation in annotations],
        "categories": [{"id": 18, "name": "dog", "color": [1, 2, 3]}, {"id": 3, "name": "car", "color": [4, 5, 6]}],
    }
    path = root / "annotations" / f"{kind}_default.json"
    text(path, json.dumps(content))
    return DataSource(data="folder", root=str(root), split="all"), path


def coco_instances(root: Path) -> tuple[DataSource, Path]:
    runs, polygon = {"size": [4, 6], "counts": [2, 3, 19]}, [[0, 0, 5, 0, 5, 3.5]]
    compressed = {"size": [4, 6], "counts": "23c0"}
    shapes = enumerate((runs, polygon, compressed))
    return coco(
        root,
        "instances",
        [{"category_id": 18, "segmentation": shape, "iscrowd": number % 2} for number, shape in shapes],
    )


def coco_panoptic(root: Path) -> tuple[DataSource, Path]:
    images.write_image(root / "panoptic_default" / "a.png", np.ones((4, 6, 3), np.uint8))
    return coco(root, "panoptic", [{"file_name": "a.png", "segments_info": [{"id": 65793, "category_id": 3}]}])


def cityscapes(root: Path) -> tuple[DataSource, Path]:
    picture(root / "leftImg8bit" / "val" / "ulm" / "ulm_0_0_leftImg8bit.png")
    path = root / "gtFine" / "val" / "ulm" / "ulm_0_0_gtFine_polygons.json"
    objects = [{"label": "car", "deleted": 0, "polygon": [[0, 0], [5, 0], [5, 3]]}]
    text(path, json.dumps({"imgHeight": 4, "imgWidth": 6, "objects": objects}))
    return DataSource(data="cityscapes", root=str(root), split="val"), path


def voc(root: Path, path: str) -> tuple[DataSource, Path]:
    base = root / "VOCdevkit" / "VOC2012"
    for name in ("2007_1", "2008_2"):
        picture(base / "JPEGImages" / f"{name}.jpg")
    mask(base / "SegmentationClass" / "2007_1.png", [0, 1])
    for part in ("train", "val"):
        text(base / "ImageSets" / "Segmentation" / f"{part}.txt", "2007_1\n")
        text(root / "dataset" / f"{part}.txt", "2008_2\n")
    (root / "dataset" / "cls").mkdir()
    content = {"GTcls": {"Segmentation": np.zeros((4, 6), np.uint8)}}
    scipy.io.savemat(root / "dataset" / "cls" / "2008_2.mat", content)
    return DataSource(data="voc2012", root=str(root), split="train_aug"), root / path


def voc_list(root: Path) -> tuple[DataSource, Path]:
    return voc(root, "VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt")


def voc_label(root: Path) -> tuple[DataSource, Path]:
    return voc(root, "dataset/cls/2008_2.mat")


def photograph(suffix: str, **options: Any) -> Callable[[Path], tuple[DataSource, Path]]:
    def build(root: Path) -> tuple[DataSource, Path]:
        from PIL import Image

        source, _ = folder(root)
        (root / "images" / "a.png").unlink()
        path = root / "images" / f"a{suffix}"
        Image.fromarray(picture(root / "x.png")).save(path, **options)
        return source, path

    return build


JSON = {"coco_instances": coco_instances, "coco_panoptic": coco_panoptic, "cityscapes": cityscapes}
FILES: dict[str, Callable[[Path], tuple[DataSource, Path]]] = {
    **JSON,
    "classes": folder,
    "colours": colours,
    "cvat": cvat,
    "cvat_list": cvat_list,
    "voc_list": voc_list,
    "voc_label": voc_label,
    "png": photograph(".png"),
    "jpg": photograph(".jpg"),
    "tif": photograph(".tif", compression="tiff_lzw"),
    "webp": photograph(".webp"),
}


def changed_bytes(content: bytes, generator: random.Random) -> bytes:
    found = bytearray(content)
    for _ in range(generator.choice([1, 1, 2, 6])):
        place = generator.randrange(len(found))
        kind = generator.randrange(6)
        if kind == 0:
            found[place] = generator.randrange(256)
        elif kind == 1:
            found[place] ^= 1 << generator.randrange(8)
        elif kind == 2:
            del found[place : place + generator.randrange(1, 12)]
        elif kind == 3:
            found[place:place] = generator.choice(
                [b"\xff", b"\0", b"[" * 500, b"99999999999", b"\xe2\x80\xae", b"*a", b": "]
            )
        elif kind == 4:
            found[place:place] = found[place : place + 30]
        else:
            found = found[: max(1, place)]
        found = found or bytearray(b" ")
    return bytes(found)


def places_in(content: Any) -> Iterator[tuple[Any, Any]]:
    keys = content if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    for key in keys:
        yield content, key
        yield from places_in(content[key])


def changed_entry(content: bytes, generator: random.Random) -> bytes:
    found = json.loads(content)
    for _ in range(generator.choice([1, 1, 2])):
        inside, key = generator.choice(list(places_in(found)))
        if generator.random() < 0.2:
            del inside[key]
        else:
            inside[key] = generator.choice([*ODD, found, inside[key]])
            inside[key] = json.loads(json.dumps(inside[key])) if inside[key] is not found else "itself"
        if not found:
            break
    return json.dumps(found).encode()


def ask(source: DataSource) -> Iterator[str]:
    """Everything that reads: what it says, and its mistakes."""
    report = check_dataset(source, [source.split])
    yield from (problem.message for problem in report.problems)
    yield from report.notes
    try:
        for part in source.open():
            for index in range(len(part)):
                part.read(index)
    except (ValueError, OSError) as error:
        yield str(error)


@pytest.mark.parametrize("kind", FILES)
def test_changed_files(tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    source, path = FILES[kind](tmp_path)
    content = path.read_bytes()
    assert kind == "colours" or source.open()[0].read(0)
    generator = random.Random(kind)
    mistakes = 0
    for number in range(60):
        change = changed_entry if kind in JSON and number % 4 else changed_bytes
        path.write_bytes(change(content, generator))
        for said in ask(source):
            assert "\n" not in said, (number, said)
            mistakes += 1
    assert mistakes > 10
    assert capfd.readouterr().err == ""
