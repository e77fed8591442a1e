"""iSAID: background and 15 kinds of objects in satellite pictures (Waqas Zamir et al. 2019, arXiv:1905.12886)."""

from __future__ import annotations

from pathlib import Path

from nonlocalseg.data.dataset import DatasetOptions, Discovery, Labels, SegmentationDataset
from nonlocalseg.data.layouts import require
from nonlocalseg.data.pairing import Matched, by_suffix, join, match, match_prepared, unlabelled
from nonlocalseg.data.tables import colours, names
from nonlocalseg.labels import IGNORE, LabelMap

_SOURCE_IMAGES = "DOTA-v1.0's {} images, named by captain-whu.github.io/iSAID"
_SOURCE_LABELS = "iSAID's {} semantic masks from captain-whu.github.io/iSAID"
_ENDING = "_instance_color_RGB.png"
_PALETTE = colours("""
    000000 00003f 003f3f 003f00 003f7f 003fbf 003fff 007f3f 007f7f 00007f 0000bf 0000ff 00bf7f 007fbf 007fff 00649b
""")


class ISAID(SegmentationDataset):
    """One of two forms; the second where its folders are there:

        {train,val,test}/images/P0000.png                                       as the archives unpack, with or
        {train,val}/Semantic_masks/images/P0000_instance_color_RGB.png          without the inner folder images/
        img_dir/{train,val,test}/NAME.png                                       mmsegmentation's windows of 896x896:
        ann_dir/{train,val}/NAME_instance_color_RGB.png                         33978 of train, 11644 of val

    1411 images for train, 458 for val, 937 for test, up to 13,000 pixels wide. Labels are colours, or the values 0 to
    15 and 255 for what was added around small images. `test` has no labels.
    """

    classes = names("""
        background, ship, store_tank, baseball_diamond, tennis_court, basketball_court, Ground_Track_Field, Bridge,
        Large_Vehicle, Small_Vehicle, Helicopter, Swimming_pool, Roundabout, Soccer_ball_field, plane, Harbor
    """)
    palette = _PALETTE
    splits = ("train", "val", "test", "trainval")
    labels = Labels(
        LabelMap(
            values={**{index: index for index in range(16)}, 255: IGNORE},
            colours={colour: index for index, colour in enumerate(_PALETTE)},
        )
    )

    @classmethod
    def disjoint_splits(cls, root: Path, options: DatasetOptions) -> tuple[str, ...]:
        return ("train", "val")

    def discover(self) -> Discovery:
        return self.found(join(match_prepared(self.root, part, _ENDING) or self._official(part) for part in self.parts))

    def _official(self, part: str) -> Matched:
        folder = require(self.root, [f"{part}/images/images", f"{part}/images"], _SOURCE_IMAGES.format(part))
        pictures = by_suffix(folder, "*", ".png")
        if part == "test":
            return unlabelled(sorted(pictures.items()))
        places = [f"{part}/Semantic_masks/images", f"{part}/Semantic_masks"]
        return match(pictures, by_suffix(require(self.root, places, _SOURCE_LABELS.format(part)), "*", _ENDING))
