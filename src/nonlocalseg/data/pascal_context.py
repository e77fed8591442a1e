"""PASCAL Context: whole scenes of PASCAL VOC 2010 in 59 classes, or 60 with background (Mottaghi et al. 2014)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from pydantic import FailFast
from typing_extensions import TypedDict

from nonlocalseg import images
from nonlocalseg.data import run_lengths
from nonlocalseg.data.dataset import DatasetOptions, Discovery, Labels, SegmentationDataset, read_stored
from nonlocalseg.data.layouts import Task, check_stored, field_of, inside, read_json, read_list, require
from nonlocalseg.data.pairing import Matched, by_suffix, join, match_listed
from nonlocalseg.data.tables import colours, distinct, names, numbers
from nonlocalseg.files import write_text
from nonlocalseg.labels import IGNORE, Colour, LabelMap
from nonlocalseg.values import value

CLASSES = names("""
    background, aeroplane, bag, bed, bedclothes, bench, bicycle, bird, boat, book, bottle, building, bus, cabinet,
    car, cat, ceiling, chair, cloth, computer, cow, cup, curtain, dog, door, fence, floor, flower, food, grass,
    ground, horse, keyboard, light, motorbike, mountain, mouse, person, plate, platform, pottedplant, road, rock,
    sheep, shelves, sidewalk, sign, sky, snow, sofa, table, track, train, tree, truck, tvmonitor, wall, water,
    window, wood
""")
PALETTE = distinct(
    colours("""
    787878 b47878 06e6e6 503232 04c803 787850 8c8c8c cc05ff e6e6e6 04fa07 e005ff ebff07 96053d 787846 08ff33 ff0652
    8fff8c ccff04 ff3307 cc4603 0066c8 3de6fa ff0633 0b66ff ff0747 ff09e0 0907e6 dcdcdc ff095c 7009ff 08ffd6 07ffe0
    ffb806 0aff47 ff290a 07ffff e0ff08 6608ff ff3d06 ffc207 ff7a08 00ff14 ff0829 ff0599 0633ff eb0cff a09614 00a3ff
    8c8c8c fa0a0f 14ff00 1fff00 ff1f00 ffe000 99ff00 0000ff ff4700 00ebff 00adff 1f00ff
    """)
)
# The class of a pixel among the 459 names of the original annotation; every other name is background.
IDS = numbers("""
    0 2 9 18 19 22 23 25 31 33 34 44 45 46 59 65 68 72 80 85 98 104 105 113 115 144 158 159 162 187 189 207 220 232
    258 259 260 284 295 296 308 324 326 347 349 354 355 360 366 368 397 415 416 420 424 427 440 445 454 458
""")
# 59_context_labels numbers the classes in another order: VOC's 20 first.
_ORDER_59 = names("""
    background, aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, table, dog, horse, motorbike, person,
    pottedplant, sheep, sofa, train, tvmonitor, bag, bed, bench, book, building, cabinet, ceiling, cloth, computer, cup,
    door, fence, floor, flower, food, grass, ground, keyboard, light, mountain, mouse, curtain, platform, sign, plate,
    road, rock, shelves, sidewalk, sky, snow, bedclothes, track, tree, truck, wall, water, window, wood
""")
MERGED = "trainval_merged.json"
_VOC = ("VOCdevkit/VOC2010", "VOC2010")
_SOURCE_VOC = "VOCtrainval_03-May-2010.tar from host.robots.ox.ac.uk/pascal/VOC/voc2010"
_SOURCE = "trainval.tar.gz from cs.stanford.edu/~roozbeh/pascal-context"


class _Image(TypedDict):
    image_id: int
    phase: str
    file_name: str
    height: int
    width: int


class _Annotation(TypedDict):
    image_id: int
    category_id: int
    segmentation: run_lengths.RunLengths


class _Merged(TypedDict):
    """What is read of `trainval_merged.json`."""

    images: Annotated[list[_Image], FailFast()]
    annos_segmentation: Annotated[list[_Annotation], FailFast()]


_Part = tuple[int, run_lengths.RunLengths]
"""A category of 459, and where it is."""


@value
class PASCALContextOptions(DatasetOptions):
    background: bool = False
    "60 classes, of which background is the first; without it background is ignored."


class PASCALContext(SegmentationDataset):
    """PASCAL VOC 2010 (`VOCdevkit/VOC2010/JPEGImages`, `ImageSets`) in `root`, with labels in one of these forms; the
    first that there is:

        VOC2010/SegmentationClassContext/NAME.png   0 is background, 1..59 the classes; `prepare pascal_context` makes
                                                    them of `trainval_merged.json`, as mmsegmentation's converter does
        trainval/NAME.mat                           the original annotation, `LabelMap` with 459 names
        59_context_labels/NAME.png                  published beside it, with its own order of the 59 classes

    The original annotation covers train and val of VOC 2010, 4998 and 5105 images, which is what papers report.
    `trainval_merged.json` (the "detail" API) later dropped three of them and has 4996 and 5104, so that figures of
    mmsegmentation and its kin are measured on 5104 images. The lists in `ImageSets/Main` and
    `ImageSets/SegmentationContext` belong to the one and to the other. In the usual palette (that of ADE20K) snow has
    the colour of bicycle; here it has one of its own.
    """

    Options = PASCALContextOptions
    options: PASCALContextOptions
    classes = CLASSES[1:]
    palette = PALETTE[1:]
    splits = ("train", "val", "trainval")
    expected_counts: ClassVar[Mapping[str, int]] = {"train": 4998, "val": 5105, "trainval": 10103}

    @classmethod
    def known_classes(cls, options: PASCALContextOptions) -> tuple[str, ...]:
        return CLASSES if options.background else CLASSES[1:]

    @classmethod
    def known_palette(cls, options: PASCALContextOptions) -> tuple[Colour, ...]:
        return PALETTE if options.background else PALETTE[1:]

    def discover(self) -> Discovery:
        voc = inside(self.root, *_VOC)
        pictures = by_suffix(require(voc, ["JPEGImages"], _SOURCE_VOC), "*", ".jpg")
        files, lists, index60 = _labels(self.root, voc)

        def matched(part: str) -> Matched:
            listed_in = require(voc, [f"ImageSets/{lists}/{part}.txt"], _SOURCE_VOC)
            return match_listed(read_list(listed_in), pictures, files, listed_in)

        found = self.found(join(map(matched, self.parts)), Labels(_meaning(index60, self.options), _stored))
        return replace(found, classes=CLASSES, palette=PALETTE) if self.options.background else found


def _labels(root: Path, voc: Path) -> tuple[dict[str, Path], str, dict[int, int]]:
    """The label files of the first form that there is, the folder of its lists, and value -> index among 60."""
    if prepared := by_suffix(voc / "SegmentationClassContext", "*", ".png"):
        return prepared, "SegmentationContext", {index: index for index in range(60)}
    for place in (root, voc):
        if original := by_suffix(place / "trainval", "*", ".mat"):
            return original, "Main", {raw: IDS.index(raw) if raw in IDS else 0 for raw in range(460)}
    for place in (root, voc):
        if published := by_suffix(place / "59_context_labels", "*", ".png"):
            return published, "Main", {raw: CLASSES.index(name) for raw, name in enumerate(_ORDER_59)}
    for place in (root, voc):
        if (place / MERGED).is_file():
            todo = f"run `nonlocalseg prepare pascal_context --root {root}` once to make label images of it"
            raise FileNotFoundError(f"{place / MERGED}: too large to read at every start; {todo}")
    raise FileNotFoundError(f"{root / 'trainval'}: missing; get {_SOURCE}")


def _meaning(index60: Mapping[int, int], options: PASCALContextOptions) -> LabelMap:
    """What is stored -> index among 60 -> class."""
    if options.background:
        return LabelMap(values=dict(index60))
    return LabelMap(values={raw: index - 1 if index else IGNORE for raw, index in index60.items()})


def _stored(label: Path, name: str) -> np.ndarray:
    return check_stored(label, field_of(label, "LabelMap")) if label.suffix == ".mat" else read_stored(label, name)


def merged_labels(root: Path) -> Iterator[Task]:
    """What `prepare` has to do: label images and lists of `trainval_merged.json`, as (file, function, arguments).

    Raises `FileNotFoundError` where the file is missing and `ValueError` where it is something else.
    """
    voc = inside(root, *_VOC)
    path = next((place / MERGED for place in (root, voc) if (place / MERGED).is_file()), None)
    if path is None:
        raise FileNotFoundError(f"{voc / MERGED}: missing; get it from the PASCAL in Detail challenge (detail-api)")
    content = read_json(path, _Merged, "the annotations of PASCAL in Detail")
    pictures = {item["image_id"]: item for item in content["images"] if item["phase"] in ("train", "val")}
    parts: dict[int, list[_Part]] = {number: [] for number in pictures}
    for item in content["annos_segmentation"]:
        if item["image_id"] in parts:
            parts[item["image_id"]].append((item["category_id"], item["segmentation"]))
    del content
    stems = {"train": [], "val": []}
    for number, item in pictures.items():
        name = Path(item["file_name"]).stem
        stems[item["phase"]].append(name)
        size = (item["height"], item["width"])
        yield voc / "SegmentationClassContext" / f"{name}.png", write_merged_label, (size, parts[number])
    for part, listed in stems.items():
        text = "".join(f"{name}\n" for name in sorted(listed))
        yield voc / "ImageSets" / "SegmentationContext" / f"{part}.txt", write_text, (text,)


def write_merged_label(path: Path, size: tuple[int, int], parts: list[_Part]) -> None:
    """Paint the parts of one image, (category of 459, run-length mask), one over the other, as indices among 60."""
    try:
        images.check_size(*size[::-1])
        label = np.zeros(size, np.uint8)
        for category, mask in parts:
            label[run_lengths.decode(mask, size)] = IDS.index(category) if category in IDS else 0
    except ValueError as error:
        raise ValueError(f"{path.stem}: {error}") from None
    images.write_mask(path, label)
