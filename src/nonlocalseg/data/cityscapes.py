"""Cityscapes: 19 classes of street scenes, 2048x1024, fine and coarse labels (Cordts et al. 2016, arXiv:1604.01685)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, ClassVar, NotRequired

import numpy as np
from PIL import Image, ImageDraw
from pydantic import FailFast
from typing_extensions import TypedDict

from nonlocalseg import images
from nonlocalseg.data.dataset import DatasetOptions, Discovery, Labels, SegmentationDataset, read_stored
from nonlocalseg.data.layouts import Coordinate, Task, read_json, require
from nonlocalseg.data.pairing import by_suffix, join, match, unlabelled
from nonlocalseg.data.tables import colours, names
from nonlocalseg.labels import IGNORE, LabelMap

# The official label ids: the place in this list is the id. "license plate" is -1 and never drawn.
LABELS = names("""
    unlabeled, ego vehicle, rectification border, out of roi, static, dynamic, ground, road, sidewalk, parking,
    rail track, building, wall, fence, guard rail, bridge, tunnel, pole, polegroup, traffic light, traffic sign,
    vegetation, terrain, sky, person, rider, car, truck, bus, caravan, trailer, train, motorcycle, bicycle
""")
_PLATE = "license plate"
_SOURCE = "{} from cityscapes-dataset.com (free for research, with registration)"
_IMAGES = {"train_extra": "leftImg8bit_trainextra.zip"}
_LABELS = {"train_extra": "gtCoarse.zip"}


class _Object(TypedDict):
    label: str
    deleted: NotRequired[int]
    polygon: list[tuple[Coordinate, Coordinate]]


class _Polygons(TypedDict):
    """What is read of a `polygons.json`."""

    imgWidth: int
    imgHeight: int
    objects: Annotated[list[_Object], FailFast()]


def _stored(label: Path, name: str) -> np.ndarray:
    return draw_polygons(label) if label.suffix == ".json" else read_stored(label, name)


class Cityscapes(SegmentationDataset):
    """The official archives side by side in `root`; each city is a folder:

        leftImg8bit/{train,val,test,train_extra}/CITY/CITY_000000_000019_leftImg8bit.png
        gtFine/{train,val}/CITY/CITY_000000_000019_gtFine_*
        gtCoarse/train_extra/CITY/CITY_000000_000019_gtCoarse_*

    where * is `labelIds.png` (as downloaded, ids 0..33), or `labelTrainIds.png` (made by cityscapesScripts, 0..18 and
    255; other tools write 19 for void), or `polygons.json`, which `prepare cityscapes` turns into label images once
    instead of at every reading; the first that there is, in this order.

    `train_extra` has coarse labels only; one of its images, troisdorf_000000_000073, is black. The labels of `test`
    stay with the benchmark server (the files in the archive hold void alone), so `test` has none.
    """

    classes = names("""
        road, sidewalk, building, wall, fence, pole, traffic light, traffic sign, vegetation, terrain, sky, person,
        rider, car, truck, bus, train, motorcycle, bicycle
    """)
    palette = colours("""
        804080 f423e8 464646 66669c be9999 999999 faaa1e dcdc00 6b8e23 98fb98 4682b4 dc143c ff0000 00008e 000046 003c64
        005064 0000e6 770b20
    """)
    splits = ("train", "val", "test", "trainval", "train_extra")
    expected_counts: ClassVar[Mapping[str, int]] = {
        "train": 2975,
        "val": 500,
        "test": 1525,
        "trainval": 3475,
        "train_extra": 19998,
    }
    label_ids: ClassVar[tuple[int, ...]] = tuple(LABELS.index(name) for name in classes)  # what the server expects
    by_id: ClassVar[LabelMap] = LabelMap(
        values={**dict.fromkeys(range(len(LABELS)), IGNORE), **{value: index for index, value in enumerate(label_ids)}}
    )
    by_train_id: ClassVar[LabelMap] = LabelMap(
        values={**{index: index for index in range(19)}, 19: IGNORE, 255: IGNORE}
    )
    labels = Labels(by_id, _stored)

    @classmethod
    def disjoint_splits(cls, root: Path, options: DatasetOptions) -> tuple[str, ...]:
        found = [part for part in cls.splits if (root / "leftImg8bit" / part).is_dir()]
        return tuple(found) or ("train", "val")

    def discover(self) -> Discovery:
        if self.split == "test":
            pictures = self._pictures("test")
            return self.found(unlabelled((name, pictures[name]) for name in sorted(pictures)))
        pictures = {part: self._pictures(part) for part in self.parts}
        labels = {part: self._labels(part) for part in self.parts}
        meanings = [meaning for meaning, _ in labels.values()]
        if meanings[0] is not meanings[-1]:
            where = self.root / "gtFine"
            raise ValueError(
                f"{where}: labelTrainIds.png in one of train and val alone; remove them, or make the others"
            )
        matched = join(match(pictures[part], files) for part, (_, files) in labels.items())
        return self.found(matched, Labels(meanings[0], _stored))

    def _pictures(self, part: str) -> dict[str, Path]:
        source = _SOURCE.format(_IMAGES.get(part, "leftImg8bit_trainvaltest.zip"))
        return by_suffix(require(self.root, [f"leftImg8bit/{part}"], source), "*/*.png", "_leftImg8bit.png")

    def _labels(self, part: str) -> tuple[LabelMap, dict[str, Path]]:
        """The label files of the first form that there is, and what they mean."""
        kind = "gtCoarse" if part == "train_extra" else "gtFine"
        source = _SOURCE.format(_LABELS.get(part, "gtFine_trainvaltest.zip"))
        folder = require(self.root, [f"{kind}/{part}"], source)
        for ending in ("labelIds.png", "labelTrainIds.png", "polygons.json"):
            if found := by_suffix(folder, "*/*", f"_{kind}_{ending}"):
                return self.by_train_id if ending == "labelTrainIds.png" else self.by_id, found
        raise FileNotFoundError(f"{folder}: holds no *_{kind}_labelIds.png; get {source}")


def draw_polygons(path: Path) -> np.ndarray:
    """Label ids uint8 [H, W] from a `polygons.json`, drawn as cityscapesScripts (json2labelImg) draws them.

    Raises `ValueError` for a file that is no Cityscapes annotation and for an unknown label.
    """
    content = read_json(path, _Polygons, "a Cityscapes annotation")
    try:
        images.check_size(content["imgWidth"], content["imgHeight"])
        picture = Image.new("L", (content["imgWidth"], content["imgHeight"]), 0)
        drawer = ImageDraw.Draw(picture)
        for item in content["objects"]:
            value = None if item.get("deleted") else _label_id(item["label"])
            if value is not None:
                drawer.polygon(item["polygon"], fill=value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a Cityscapes annotation ({error}); get it again") from None
    return np.array(picture)


def polygon_labels(root: Path) -> Iterator[Task]:
    """What `prepare` has to do: a `labelIds.png` beside every `polygons.json`, as (file, function, arguments)."""
    found = False
    for path in sorted(root.glob("gt*/*/*/*_polygons.json")):
        found = True
        yield path.with_name(path.name.replace("_polygons.json", "_labelIds.png")), write_polygons, (path,)
    if not found:
        raise FileNotFoundError(
            f"{root / 'gtFine'}: holds no *_polygons.json; get {_SOURCE.format('gtFine_trainvaltest.zip')}"
        )


def write_polygons(path: Path, annotation: Path) -> None:
    """Draw one annotation into one label image."""
    images.write_mask(path, draw_polygons(annotation))


def _label_id(label: str) -> int | None:
    """The id of a label, "cargroup" as "car"; None for what is not drawn."""
    name = label if label in LABELS or label == _PLATE else label.removesuffix("group")
    if name == _PLATE:
        return None
    if name not in LABELS:
        raise ValueError(f"unknown label {label!r}")
    return LABELS.index(name)
