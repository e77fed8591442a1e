"""LoveDA: land cover of Chinese cities and villages from the air, 0.3 m a pixel (Wang et al. 2021), 7 classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from nonlocalseg.data.dataset import DatasetOptions, Discovery, Labels, SegmentationDataset
from nonlocalseg.data.layouts import require
from nonlocalseg.data.pairing import Matched, by_suffix, join, match, match_prepared, unlabelled
from nonlocalseg.data.tables import colours, names
from nonlocalseg.labels import IGNORE, LabelMap

_SOURCE = "{}.zip from zenodo.org/records/5706578"
_AREAS = ("Urban", "Rural")


class LoveDA(SegmentationDataset):
    """One of two forms; the second where its folders are there:

        {Train,Val,Test}/{Urban,Rural}/images_png/NAME.png     as the archives unpack
        {Train,Val}/{Urban,Rural}/masks_png/NAME.png
        img_dir/{train,val,test}/NAME.png  ann_dir/{train,val}/NAME.png     as mmsegmentation's converter leaves them

    Values 1 to 7 are the classes, 0 is where there is no picture. `test` has no labels.
    """

    classes = names("background, building, road, water, barren, forest, agricultural")
    palette = colours("ffffff ff0000 ffff00 0000ff 9f81b7 00ff00 ffc380")
    splits = ("train", "val", "test", "trainval")
    labels = Labels(LabelMap(values={0: IGNORE, **{stored: stored - 1 for stored in range(1, 8)}}))
    expected_counts: ClassVar[Mapping[str, int]] = {"train": 2522, "val": 1669, "test": 1796, "trainval": 4191}

    @classmethod
    def disjoint_splits(cls, root: Path, options: DatasetOptions) -> tuple[str, ...]:
        return ("train", "val")

    def discover(self) -> Discovery:
        return self.found(join(match_prepared(self.root, part) or self._official(part) for part in self.parts))

    def _official(self, part: str) -> Matched:
        folder = require(self.root, [part.capitalize()], _SOURCE.format(part.capitalize()))
        places = [require(folder, [area], _SOURCE.format(part.capitalize())) for area in _AREAS]
        pictures = {area.name: by_suffix(area, "images_png/*", ".png") for area in places}
        if part == "test":
            found = {name: path for pictures_of in pictures.values() for name, path in pictures_of.items()}
            return unlabelled(sorted(found.items()))
        return join(match(pictures[area.name], by_suffix(area, "masks_png/*", ".png")) for area in places)
