"""Mapillary Vistas v1.2: street scenes from all over the world, 65 classes (Neuhold et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from nonlocalseg.data.dataset import DatasetOptions, Discovery, Labels, SegmentationDataset
from nonlocalseg.data.layouts import require
from nonlocalseg.data.pairing import Matched, by_suffix, join, match, unlabelled
from nonlocalseg.data.tables import colours, names
from nonlocalseg.labels import IGNORE, LabelMap
from nonlocalseg.values import value

CLASSES = names("""
    Bird, Ground Animal, Curb, Fence, Guard Rail, Barrier, Wall, Bike Lane, Crosswalk - Plain, Curb Cut, Parking,
    Pedestrian Area, Rail Track, Road, Service Lane, Sidewalk, Bridge, Building, Tunnel, Person, Bicyclist,
    Motorcyclist, Other Rider, Lane Marking - Crosswalk, Lane Marking - General, Mountain, Sand, Sky, Snow, Terrain,
    Vegetation, Water, Banner, Bench, Bike Rack, Billboard, Catch Basin, CCTV Camera, Fire Hydrant, Junction Box,
    Mailbox, Manhole, Phone Booth, Pothole, Street Light, Pole, Traffic Sign Frame, Utility Pole, Traffic Light,
    Traffic Sign (Back), Traffic Sign (Front), Trash Can, Bicycle, Boat, Bus, Car, Caravan, Motorcycle, On Rails,
    Other Vehicle, Trailer, Truck, Wheeled Slow, Car Mount, Ego Vehicle, Unlabeled
""")
PALETTE = colours("""
    a52a2a 00c000 c4c4c4 be9999 b4a5b4 5a7896 66669c 8040ff 8c8cc8 aaaaaa faaaa0 606060 e6968c 804080 6e6e6e f423e8
    966464 464646 96785a dc143c ff0000 ff0064 ff00c8 c88080 ffffff 40aa40 e6a032 4682b4 beffff 98fb98 6b8e23 00aa1e
    ffff80 fa001e 648cb4 dcdcdc dc8080 de2828 64aa1e 282828 212121 6480a0 8e0000 466496 d2aa64 999999 808080 000050
    faaa1e c0c0c0 dcdc00 8c8c14 770b20 9600ff 003c64 00008e 00005a 0000e6 005064 804040 00006e 000046 0000c0 202020
    780a0a 000000
""")
_SOURCE = "Mapillary Vistas from mapillary.com/dataset/vistas (free for research, with registration)"
_FOLDERS = {"train": "training", "val": "validation", "test": "testing"}


@value
class MapillaryVistasOptions(DatasetOptions):
    unlabeled: bool = False
    "66 classes, of which Unlabeled is the last; without it Unlabeled is ignored."


class MapillaryVistas(SegmentationDataset):
    """The archive as it unpacks:

        {training,validation,testing}/images/NAME.jpg
        {training,validation}/v1.2/labels/NAME.png      values 0 to 65 (v1.1 has labels/ without v1.2/)

    Value 65 is Unlabeled. `testing` has no labels. The 124 classes of v2.0 are another data set.
    """

    Options = MapillaryVistasOptions
    options: MapillaryVistasOptions
    classes = CLASSES[:-1]
    palette = PALETTE[:-1]
    splits = ("train", "val", "test", "trainval")
    labels = Labels(LabelMap(values={**{index: index for index in range(65)}, 65: IGNORE, 255: IGNORE}))
    expected_counts: ClassVar[Mapping[str, int]] = {"train": 18000, "val": 2000, "test": 5000, "trainval": 20000}

    @classmethod
    def known_classes(cls, options: MapillaryVistasOptions) -> tuple[str, ...]:
        return CLASSES if options.unlabeled else CLASSES[:-1]

    @classmethod
    def disjoint_splits(cls, root: Path, options: DatasetOptions) -> tuple[str, ...]:
        return ("train", "val")

    def discover(self) -> Discovery:
        found = self.found(join(map(self._matched, self.parts)))
        if not self.options.unlabeled:
            return found
        labels = Labels(LabelMap(values={**{index: index for index in range(66)}, 255: IGNORE}))
        return replace(found, classes=CLASSES, palette=PALETTE, labels=labels)

    def _matched(self, part: str) -> Matched:
        folder = _FOLDERS[part]
        pictures = by_suffix(require(self.root, [f"{folder}/images"], _SOURCE), "*", ".jpg")
        if part == "test":
            return unlabelled(sorted(pictures.items()))
        places = [f"{folder}/v1.2/labels", f"{folder}/labels"]
        return match(pictures, by_suffix(require(self.root, places, _SOURCE), "*", ".png"))
