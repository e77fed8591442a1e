"""COCO-Stuff, 10K and 164K images: 80 thing and 91 stuff classes (Caesar et al. 2018, arXiv:1612.03716)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from nonlocalseg.data.dataset import Discovery, Labels, SegmentationDataset
from nonlocalseg.data.layouts import check_stored, inside, read_list, read_mat, require
from nonlocalseg.data.pairing import by_suffix, match, match_listed
from nonlocalseg.data.tables import colours, distinct, names, numbers
from nonlocalseg.labels import IGNORE, LabelMap

CLASSES = names("""
    person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign,
    parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella,
    handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard,
    surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange,
    broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv,
    laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase,
    scissors, teddy bear, hair drier, toothbrush, banner, blanket, branch, bridge, building-other, bush, cabinet,
    cage, cardboard, carpet, ceiling-other, ceiling-tile, cloth, clothes, clouds, counter, cupboard, curtain,
    desk-stuff, dirt, door-stuff, fence, floor-marble, floor-other, floor-stone, floor-tile, floor-wood, flower,
    fog, food-other, fruit, furniture-other, grass, gravel, ground-other, hill, house, leaves, light, mat, metal,
    mirror-stuff, moss, mountain, mud, napkin, net, paper, pavement, pillow, plant-other, plastic, platform,
    playingfield, railing, railroad, river, road, rock, roof, rug, salad, sand, sea, shelf, sky-other, skyscraper,
    snow, solid-other, stairs, stone, straw, structural-other, table, tent, textile-other, towel, tree, vegetable,
    wall-brick, wall-concrete, wall-other, wall-panel, wall-stone, wall-tile, wall-wood, water-other, waterdrops,
    window-blind, window-other, wood
""")
PALETTE = distinct(
    colours("""
    00c040 00c040 004060 80c0c0 004040 00c0e0 00c0c0 80c040 00c060 80c040 8020c0 0000e0 000040 00a0c0 800060 8000c0
    0020c0 8080e0 0000c0 80a0c0 808000 800020 802000 800080 408020 00a000 000000 c080a0 002000 008080 4080a0 80a000
    008000 c08020 806080 000080 400020 00e080 800000 c000a0 006080 808080 4000a0 80e080 808040 c00020 806000 8000c0
    008020 40e000 000040 8080a0 406000 0080c0 0080a0 c0e000 008040 808020 c02080 0040c0 000020 40a080 804040 8000a0
    402080 80c0c0 0000a0 c0a080 80c000 800060 c02000 804080 408060 40a000 004000 c080e0 402000 00c080 4080e0 c0a000
    00c000 c08060 c06080 004080 400060 40e080 804000 c000e0 406080 80c080 4000e0 c0e080 80c040 c00060 c06000 8040c0
    008060 00e000 404040 8080e0 006000 40c0c0 0080e0 80e000 40c040 808060 802080 4000c0 004060 00a080 c00040 8040e0
    002080 c080c0 0040e0 80a080 c08000 804020 802040 c00080 40c020 00a040 400000 c0c0a0 002040 408080 40c0a0 80a040
    408000 c0c020 8060c0 400080 404020 00e0c0 c00000 c040a0 0060c0 c08080 4040a0 80e0c0 c08040 c04020 806040 c000c0
    00c020 40e040 400040 80c0a0 406040 4080c0 00c0a0 c0e040 408040 80c020 c020c0 4040c0 004020 40a0c0 c04040 8040a0
    4020c0 c0c0c0 0040a0 c0a0c0 c0c000 804060 c02040 c04080 40c060 40a040 404000
    """)
)
# The ids 1..182 that have pixels. COCO listed 91 things and labelled 80: 12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91
# never occur.
IDS = numbers("1-11 13-25 27-28 31-44 46-65 67 70 72-82 84-90 92-182")
_SOURCE_10K = "cocostuff-10k-v1.1.zip, named by github.com/nightrome/cocostuff10k"
_SOURCE_MAPS = "stuffthingmaps_trainval2017.zip, named by github.com/nightrome/cocostuff"
_SOURCE_IMAGES = "{}.zip from cocodataset.org"


def _read_ids(path: Path, _name: str) -> np.ndarray:
    """Ids 0..182 as int32 [H, W] from a .mat file of either version. Raises `ValueError` for any other content."""
    content = read_mat(path, "S", "names")
    if "S" not in content:
        raise ValueError(f"{path}: has no field S; is it a label file of COCO-Stuff 10K?")
    stored = check_stored(path, content["S"]).astype(np.int32)
    count = content["names"].size if "names" in content else 0
    lowest, highest = int(stored.min(initial=1)), int(stored.max(initial=1))
    if not count:  # stripped by some copies: 0 and ids past 172 exist in version 1.1 alone
        count = 182 if lowest == 0 or highest > 172 else 0
    if count in (182, 183) and lowest >= 0 and highest <= 182:
        return stored
    if count == 172 and lowest >= 1 and highest <= 172:
        return np.array([0, 0, *IDS], np.int32)[stored]
    reason = (
        f"{count} names and values {lowest} to {highest}" if count else "no names, and its values fit both versions"
    )
    raise ValueError(f"{path}: has {reason}; expected 182 names (0 to 182) or 172 names (1 to 172); unpack it again")


class COCOStuff10K(SegmentationDataset):
    """The official archive: `images/NAME.jpg`, `annotations/NAME.mat`, `imageLists/{train,test}.txt`.

    The label is the field `S` of the .mat file, in one of two conventions, told apart by its field `names`:

        version 1.1   182 names, `S` from 0 to 182, 0 is unlabelled: COCO's own ids
        version 1.0   172 names, `S` from 1 to 172, 1 is unlabelled: the ids without the 11 that never occur

    In the published palette nine classes have the colour of another one (bicycle that of person); here each has its own.
    """

    classes = CLASSES
    palette = PALETTE
    splits = ("train", "test")
    expected_counts: ClassVar[Mapping[str, int]] = {"train": 9000, "test": 1000}
    labels = Labels(LabelMap(values={0: IGNORE, **{value: index for index, value in enumerate(IDS)}}), _read_ids)

    def discover(self) -> Discovery:
        root = inside(self.root, "cocostuff-10k-v1.1", "cocostuff-10k-v1.0", "dataset")
        pictures = by_suffix(require(root, ["images"], _SOURCE_10K), "*", ".jpg")
        labels = by_suffix(require(root, ["annotations"], _SOURCE_10K), "*", ".mat")
        listed_in = require(root, [f"imageLists/{self.split}.txt"], _SOURCE_10K)
        return self.found(match_listed(read_list(listed_in), pictures, labels, listed_in))


class COCOStuff164K(SegmentationDataset):
    """COCO 2017 with the "stuff+thing" label images: `images/{train2017,val2017}/NAME.jpg` (or without `images/`) and
    `annotations/{train2017,val2017}/NAME.png` (or in `stuffthingmaps/` or `stuffthingmaps_trainval2017/`).

    Their values are COCO's ids minus one, 0..181, and 255 for unlabelled.

    In the published palette nine classes have the colour of another one (bicycle that of person); here each has its own.
    """

    classes = CLASSES
    palette = PALETTE
    splits = ("train", "val")
    expected_counts: ClassVar[Mapping[str, int]] = {"train": 118287, "val": 5000}
    labels = Labels(LabelMap(values={**{value - 1: index for index, value in enumerate(IDS)}, 255: IGNORE}))

    def discover(self) -> Discovery:
        part = f"{self.split}2017"
        folder = require(self.root, [f"images/{part}", part], _SOURCE_IMAGES.format(part))
        places = [f"{place}/{part}" for place in ("annotations", "stuffthingmaps", "stuffthingmaps_trainval2017")]
        labels = by_suffix(require(self.root, places, _SOURCE_MAPS), "*", ".png")
        labels = {name: path for name, path in labels.items() if not name.endswith("_labelTrainIds")}  # mmsegmentation
        return self.found(match(by_suffix(folder, "*", ".jpg"), labels))
