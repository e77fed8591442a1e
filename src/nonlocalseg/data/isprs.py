"""ISPRS Potsdam and Vaihingen: two German towns from the air, 5 and 9 cm a pixel (ISPRS 2D semantic labelling, 2014)."""

from __future__ import annotations

from pathlib import Path

from nonlocalseg.data.dataset import Discovery, Labels, SegmentationDataset
from nonlocalseg.data.pairing import Matched, by_suffix, join, match, match_prepared
from nonlocalseg.data.tables import colours, names
from nonlocalseg.labels import IGNORE, LabelMap

_SITE = "isprs.org (benchmarks, 2D semantic labelling)"
_CLASSES = names("impervious_surface, building, low_vegetation, tree, car, clutter")
_PALETTE = colours("ffffff 0000ff 00ffff 00ff00 ffff00 ff0000")
_LABELS = Labels(
    LabelMap(
        values={0: IGNORE, **{index + 1: index for index in range(6)}},
        colours={(0, 0, 0): IGNORE, **{colour: index for index, colour in enumerate(_PALETTE)}},
    )
)
_POTSDAM = {
    "train": "2_10 2_11 2_12 3_10 3_11 3_12 4_10 4_11 4_12 5_10 5_11 5_12 6_10 6_11 6_12 6_7 6_8 6_9 7_10 7_11 7_12 "
    "7_7 7_8 7_9",
    "val": "2_13 2_14 3_13 3_14 4_13 4_14 4_15 5_13 5_14 5_15 6_13 6_14 6_15 7_13",
}
_VAIHINGEN = {
    "train": "1 11 13 15 17 21 23 26 28 3 30 32 34 37 5 7",
    "val": "2 4 6 8 10 12 14 16 20 22 24 27 29 31 33 35 38",
}


class Potsdam(SegmentationDataset):
    """One of two forms; the second where its folders are there:

        2_Ortho_RGB/top_potsdam_2_10_RGB.tif                                    as the archives unpack, anywhere
        5_Labels_all_noBoundary/top_potsdam_2_10_label_noBoundary.tif           below the root: 38 tiles of 6000x6000
        5_Labels_all/top_potsdam_2_10_label.tif                                 (used where those are missing)
        img_dir/{train,val}/NAME.png  ann_dir/{train,val}/NAME.png              mmsegmentation's: 3456 + 2016 of 512x512

    Labels are colours, or the values 1 to 6; black and 0, as on the borders that `noBoundary` leaves out, are ignored.
    mmsegmentation's figures are measured on `noBoundary`. train has the 24 tiles of the contest, val the other 14.
    """

    classes = _CLASSES
    palette = _PALETTE
    splits = ("train", "val", "trainval")
    labels = _LABELS

    def discover(self) -> Discovery:
        return self.found(join(match_prepared(self.root, part) or self._tiles(part) for part in self.parts))

    def _tiles(self, part: str) -> Matched:
        pictures = _some(by_suffix(self.root, "**/top_potsdam_*", "_RGB.tif"), self.root, "2_Ortho_RGB.zip")
        labels = by_suffix(self.root, "**/top_potsdam_*", "_label_noBoundary.tif")
        labels = labels or by_suffix(self.root, "**/top_potsdam_*", "_label.tif")
        return _those(_POTSDAM[part], "top_potsdam_", pictures, _some(labels, self.root, "5_Labels_all_noBoundary.zip"))


class Vaihingen(SegmentationDataset):
    """One of two forms; the second where its folders are there:

        top/top_mosaic_09cm_area1.tif                                           as the archives unpack, anywhere
        .../top_mosaic_09cm_area1_noBoundary.tif                                below the root: 33 areas
        .../top_mosaic_09cm_area1.tif                                           (labels, used where those are missing)
        img_dir/{train,val}/NAME.png  ann_dir/{train,val}/NAME.png              mmsegmentation's: 344 + 398 of 512x512

    Red, green and blue of the images show near infrared, red and green. Labels are colours, or the values 1 to 6; black
    and 0, as on the borders that `noBoundary` leaves out, are ignored. mmsegmentation's figures are measured on
    `noBoundary`. train has the 16 areas of the contest, val the other 17.
    """

    classes = _CLASSES
    palette = _PALETTE
    splits = ("train", "val", "trainval")
    labels = _LABELS

    def discover(self) -> Discovery:
        return self.found(join(match_prepared(self.root, part) or self._areas(part) for part in self.parts))

    def _areas(self, part: str) -> Matched:
        pictures = by_suffix(self.root, "**/top/top_mosaic_09cm_area*", ".tif")
        pictures = _some(pictures, self.root, "ISPRS_semantic_labeling_Vaihingen.zip")
        labels = by_suffix(self.root, "**/top_mosaic_09cm_area*", "_noBoundary.tif")
        if not labels:
            every = self.root.glob("**/top_mosaic_09cm_area*.tif")
            labels = {path.stem: path for path in every if path.parent.name != "top"}
        labels = _some(labels, self.root, "ISPRS_semantic_labeling_Vaihingen_ground_truth_eroded_COMPLETE.zip")
        return _those(_VAIHINGEN[part], "top_mosaic_09cm_area", pictures, labels)


def _some(found: dict[str, Path], root: Path, archive: str) -> dict[str, Path]:
    if not found:
        raise FileNotFoundError(f"{root}: holds nothing of {archive}; get it from {_SITE} and unpack it here")
    return found


def _those(numbers: str, prefix: str, pictures: dict[str, Path], labels: dict[str, Path]) -> Matched:
    """The pairs of some tiles."""
    wanted = {prefix + number for number in numbers.split()}
    return match(
        {name: path for name, path in pictures.items() if name in wanted},
        {name: path for name, path in labels.items() if name in wanted},
    )
