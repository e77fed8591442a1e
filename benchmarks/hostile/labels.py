"""Data sets and what labelling tools export: whole ones, of which one file is changed, checked and read."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from PIL import Image

from benchmarks.hostile.cage import Caged, Kind
from benchmarks.hostile.changes import Change, changed_bytes, changed_json, changed_text, changed_xml
from benchmarks.hostile.pictures import changed_picture, photograph, whole_masks, whole_pictures
from nonlocalseg.data.annotations import annotate
from nonlocalseg.data.checking import check_dataset
from nonlocalseg.data.sharding import write_shards
from nonlocalseg.data.source import DataSource

CLASSES, COLOURS = ("road", "car <&>", "tree"), ((1, 2, 3), (4, 5, 6), (7, 8, 9))
MASK = (photograph()[..., 0] // 64 % 3).astype(np.uint8)
JPEG = whole_pictures()["steps.jpg"]


def put(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def own(root: Path, split: str = "all", **options: Any) -> DataSource:
    return DataSource(data="folder", root=str(root), split=split, data_options=options)


def said_of(source: DataSource) -> Iterable[str]:
    """All that check-data says; then everything is read."""
    report = check_dataset(source, [source.split])
    for part in source.open():
        for index in range(len(part)):
            part.read(index)
    return [problem.message for problem in report.problems]


def one_file(source: DataSource, path: Path, change: Change) -> Caged:
    content = path.read_bytes()
    return Caged(lambda drawn: put(path, change(content, drawn)) and None, lambda: said_of(source))


def of_several(files: dict[Path, Change], source: DataSource) -> Caged:
    """One of the files is changed in each case, the others are whole."""
    whole = {path: path.read_bytes() for path in files}

    def change(drawn: random.Random) -> None:
        chosen = drawn.choice(sorted(files))
        for path, content in whole.items():
            path.write_bytes(files[path](content, drawn) if path == chosen else content)

    return Caged(change, lambda: said_of(source))


def folder_data(root: Path, classes: str, mask: str) -> None:
    put(root / "images" / "a.jpg", JPEG)
    put(root / "masks" / "a.png", whole_masks()[mask])
    put(root / "classes.yaml", classes)


def label_images(root: Path) -> Caged:
    """The masks of a folder, and the pictures beside them."""
    folder_data(root, "masks: {0: ignore, 1: road, 2: car}\n", "grey.png")
    changes = {root / "masks" / "a.png": changed_picture("a.png"), root / "images" / "a.jpg": changed_picture("a.jpg")}
    return of_several(changes, own(root))


def changed_yaml(content: bytes, drawn: random.Random) -> bytes:
    if drawn.random() < 0.05:
        bomb = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
        return drawn.choice(
            (b"a0: &a0 x\n" + bomb.encode() + content, b"&a [*a]", b"!!python/object/new:os.system [x]")
        )
    return (changed_text if drawn.random() < 0.7 else changed_bytes)(content, drawn)


def classes(root: Path) -> Caged:
    text = "masks:\n  0: ignore\n  1: road\n  2: car\npalette: {road: '#804080', car: [1, 2, 3]}\n"
    folder_data(root, text, "grey.png")
    return one_file(own(root), root / "classes.yaml", changed_yaml)


def colours(root: Path) -> Caged:
    text = "masks:\n  [0, 0, 0]: ignore\n  '#ffffff': road\n"
    folder_data(root, text, "colours.png")
    return one_file(own(root), root / "classes.yaml", changed_yaml)


def cvat_masks(root: Path) -> Caged:
    put(root / "JPEGImages" / "a.jpg", JPEG)
    put(root / "SegmentationClass" / "a.png", whole_masks()["colours.png"])
    listed = put(root / "ImageSets" / "Segmentation" / "default.txt", "a\n")
    text = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad:255,255,255::\n"
    return of_several({listed: changed_text, put(root / "labelmap.txt", text): changed_text}, own(root))


def coco(root: Path, kind: str, annotations: list[dict[str, Any]]) -> Caged:
    put(root / "images" / "a.jpg", JPEG)
    height, width = MASK.shape
    content = {
        "images": [{"id": 7, "file_name": "a.jpg", "height": height, "width": width}],
        "annotations": [{"image_id": 7, **annotation} for annotation in annotations],
        "categories": [{"id": 18, "name": "dog", "color": [1, 2, 3]}, {"id": 3, "name": "car", "color": [4, 5, 6]}],
    }
    path = put(root / "annotations" / f"{kind}_default.json", json.dumps(content))
    return one_file(own(root), path, changed_json)


def coco_instances(root: Path) -> Caged:
    height, width = MASK.shape
    shapes = (
        {"size": [height, width], "counts": [2, 3, height * width - 5]},
        [[0, 0, 50, 0, 50, 30.5], [3, 3, 9, 9, 1, 1]],
        {"size": [height, width], "counts": "54gU2"},
    )
    listed = [
        {"category_id": 18, "segmentation": shape, "iscrowd": number % 2} for number, shape in enumerate(shapes[:2])
    ]
    return coco(root, "instances", listed)


def coco_written(root: Path) -> Caged:
    """Compressed run lengths, as `predict --format coco` writes them."""
    return written("coco", root, lambda path: changed_json if path.suffix == ".json" else None)


def coco_panoptic(root: Path) -> Caged:
    segments = np.stack([MASK + 1, *[np.zeros_like(MASK)] * 2], axis=2)
    buffer = io.BytesIO()
    Image.fromarray(segments).save(buffer, "PNG")
    put(root / "panoptic_default" / "a.png", buffer.getvalue())
    listed = [{"id": 1, "category_id": 3}, {"id": 2, "category_id": 18}, {"id": 3, "category_id": 3}]
    return coco(root, "panoptic", [{"file_name": "a.png", "segments_info": listed}])


def written(form: str, root: Path, change: Callable[[Path], Change | None]) -> Caged:
    """What `annotate` writes for a labelling tool."""
    put(root / "images" / "a.jpg", JPEG)
    annotate(root, [form], [("a.jpg", MASK)], CLASSES, COLOURS)
    files = {path: found for path in sorted(root.rglob("*")) if path.is_file() and (found := change(path))}
    return of_several(files, own(root))


def cvat_xml(root: Path) -> Caged:
    written("cvat", root, lambda path: changed_xml if path.suffix == ".xml" else None)
    path = root / "annotations.xml"
    shape = '<polygon label="road" points="1.5,2;30,4;8,20" z_order="1"/></image>'
    put(path, path.read_text().replace("</image>", shape))
    return one_file(own(root), path, changed_xml)


def label_studio(root: Path) -> Caged:
    return written("label-studio", root, lambda path: changed_json if path.suffix == ".json" else None)


def geojson(root: Path) -> Caged:
    return written("geojson", root, lambda path: changed_json if path.suffix == ".geojson" else None)


def cityscapes(root: Path) -> Caged:
    put(root / "leftImg8bit" / "val" / "ulm" / "ulm_0_0_leftImg8bit.png", whole_pictures()["colour.png"])
    height, width = MASK.shape
    objects = [{"label": "car", "deleted": 0, "polygon": [[0, 0], [5, 0], [5, 3]]}]
    text = json.dumps({"imgHeight": height, "imgWidth": width, "objects": objects})
    path = put(root / "gtFine" / "val" / "ulm" / "ulm_0_0_gtFine_polygons.json", text)
    return one_file(DataSource(data="cityscapes", root=str(root), split="val"), path, changed_json)


def voc(root: Path) -> Caged:
    base, more = root / "VOCdevkit" / "VOC2012", root / "dataset"
    lists = {}
    for name in ("2007_1", "2008_2"):
        put(base / "JPEGImages" / f"{name}.jpg", JPEG)
    put(base / "SegmentationClass" / "2007_1.png", whole_masks()["palette.png"])
    for part in ("train", "val"):
        lists[put(base / "ImageSets" / "Segmentation" / f"{part}.txt", "2007_1\n")] = changed_text
        lists[put(more / f"{part}.txt", "2008_2\n")] = changed_text
    label = more / "cls" / "2008_2.mat"
    label.parent.mkdir()
    scipy.io.savemat(label, {"GTcls": {"Segmentation": MASK}}, do_compression=True)
    changes: dict[Path, Change] = {**lists, label: changed_bytes}
    return of_several(changes, DataSource(data="voc2012", root=str(root), split="train_aug"))


def shards(root: Path) -> Caged:
    plain, packed = root / "plain", root / "packed"
    folder_data(plain, "masks: {0: ignore, 1: road, 2: car}\n", "grey.png")
    write_shards(own(plain), packed, "pixels")
    return one_file(own(packed), packed / "shards.json", changed_json)


KINDS = tuple(
    Kind(name, prepare)
    for name, prepare in {
        "label images": label_images,
        "classes.yaml by value": classes,
        "classes.yaml by colour": colours,
        "COCO instances": coco_instances,
        "COCO run lengths": coco_written,
        "COCO panoptic": coco_panoptic,
        "CVAT for images": cvat_xml,
        "CVAT masks": cvat_masks,
        "Label Studio": label_studio,
        "GeoJSON": geojson,
        "Cityscapes polygons": cityscapes,
        "VOC lists and .mat": voc,
        "shards": shards,
    }.items()
)
