"""NYU Depth V2: 40 classes of indoor scenes, 640x480 (Silberman et al. 2012; classes of Gupta et al. 2013)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from nonlocalseg import images
from nonlocalseg.data.dataset import Discovery, Labels, SegmentationDataset
from nonlocalseg.data.layouts import read_list
from nonlocalseg.data.pairing import Matched, Pair, match_folders, match_listed
from nonlocalseg.data.tables import colours, names, numbers
from nonlocalseg.labels import IGNORE, LabelMap

if TYPE_CHECKING:
    import h5py

LABELED = "nyu_depth_v2_labeled.mat"
_SOURCE = f"{LABELED} from cs.nyu.edu/~silberman/datasets/nyu_depth_v2.html"
_IMAGES = ("RGB", "rgb", "images", "image")
_LABELS = ("Label", "label40", "labels40", "labels", "label")


class NYUDv2(SegmentationDataset):
    """One of two forms; the first that there is:

        nyu_depth_v2_labeled.mat            as downloaded: 1449 images, labels of 894 names
        RGB/*  Label/*  {train,test}.txt    label images, 0 is void and 1..40 the classes; or, without the lists,
                                            RGB/{train,test}/* and Label/{train,test}/* (also images/ and label40/)

    `splits.mat` (795 and 654 images) and `classMapping40.mat` need not be there: this file holds both.
    """

    classes = names("""
        wall, floor, cabinet, bed, chair, sofa, table, door, window, bookshelf, picture, counter, blinds, desk, shelves,
        curtain, dresser, pillow, mirror, floor mat, clothes, ceiling, books, refridgerator, television, paper, towel,
        shower curtain, box, whiteboard, person, night stand, toilet, sink, lamp, bathtub, bag, otherstructure,
        otherfurniture, otherprop
    """)
    palette = colours("""
        800000 008000 808000 000080 800080 008080 808080 400000 c00000 408000 c08000 400080 c00080 408080 c08080 004000
        804000 00c000 80c000 004080 804080 00c080 80c080 404000 c04000 40c000 c0c000 404080 c04080 40c080 c0c080 000040
        800040 008040 808040 0000c0 8000c0 0080c0 8080c0 400040
    """)
    splits = ("train", "test")
    labels = Labels(LabelMap(values={0: IGNORE, **{index + 1: index for index in range(40)}}))
    expected_counts: ClassVar[Mapping[str, int]] = {"train": 795, "test": 654}

    def discover(self) -> Discovery:
        whole = self.root / LABELED
        if not whole.is_file():
            return self.found(self._label_images())
        _check_axes(whole)
        meaning = LabelMap(values={0: IGNORE, **{raw: index - 1 for raw, index in enumerate(CLASS_OF_894, 1)}})
        pairs = [Pair(f"{number:04}", whole, whole) for number in SPLITS[self.split]]
        return self.found((pairs, []), Labels(meaning, _stored))

    def _label_images(self) -> Matched:
        image_root = next((self.root / name for name in _IMAGES if (self.root / name).is_dir()), None)
        label_root = next((self.root / name for name in _LABELS if (self.root / name).is_dir()), None)
        if image_root is None or label_root is None:
            missing = f"{self.root / LABELED}: missing, and no folders RGB and Label in its place"
            raise FileNotFoundError(f"{missing}; get {_SOURCE}")
        listed_in = self.root / f"{self.split}.txt"
        if listed_in.is_file():
            pictures = {path.stem: path for path in images.images_below(image_root)}
            labels = {path.stem: path for path in images.images_below(label_root)}
            return match_listed(read_list(listed_in), pictures, labels, listed_in)
        image_root, label_root = image_root / self.split, label_root / self.split
        if not image_root.is_dir() or not label_root.is_dir():
            raise FileNotFoundError(f"{listed_in}: missing, and no folders {image_root} and {label_root} in its place")
        return match_folders(image_root, label_root)

    def read_image(self, index: int) -> np.ndarray:
        pair = self.pairs[index]
        if pair.image.name != LABELED:
            return super().read_image(index)
        return np.ascontiguousarray(_read(pair.image, "images", pair.name).transpose(2, 1, 0))  # [3, W, H] -> [H, W, 3]


def _stored(file: Path, name: str) -> np.ndarray:
    return _read(file, "labels", name).T.astype(np.int32)  # [W, H] -> [H, W]


def _read(path: Path, field: str, name: str) -> np.ndarray:
    """One image's part of a field. The file is opened each time: HDF5 handles do not survive a fork."""
    import h5py

    try:
        with h5py.File(path) as file:
            return np.asarray(_field(file, field)[int(name) - 1])
    except (OSError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: {field} of image {name} cannot be read ({reason}); get it again") from None


def _field(file: h5py.File, name: str) -> h5py.Dataset:
    import h5py

    found = file[name]
    if not isinstance(found, h5py.Dataset):
        raise KeyError(f"{name} is no array")
    return found


def _check_axes(path: Path) -> None:
    """MATLAB stores axes backwards: images [N, 3, W, H], labels [N, W, H]. Raises `ValueError` for anything else."""
    import h5py

    try:
        with h5py.File(path) as file:
            image, label = (_field(file, field).shape for field in ("images", "labels"))
    except (OSError, KeyError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}; get {_SOURCE}") from None
    backwards = len(image) == 4 and image[1] == 3 and label == (image[0], *image[2:]) and image[2] > image[3]
    if not backwards:
        expected = "images [1449, 3, 640, 480] and labels [1449, 640, 480]"
        raise ValueError(f"{path}: images {list(image)} and labels {list(label)}; expected {expected}: get {_SOURCE}")
    if image[0] < max(max(split) for split in SPLITS.values()):
        raise ValueError(f"{path}: {image[0]} images where 1449 are expected; get {_SOURCE}")


# Class 1..40 of each of the 894 names, in their order (classMapping40.mat, `mapClass`).
CLASS_OF_894 = numbers("""
    40 40 3 22 5 40 12 38 40 40 2 39 40 40 26 40 24 40 7 40 1 40 40 34 38 29 40 8 40 40 40 40 38 40 40 14 40 38 40
    40 40 15 39 40 30 40 40 39 40 39 38 40 38 40 37 40 38 38 9 40 40 38 40 11 38 40 40 40 40 40 40 40 40 40 40 40 40
    40 38 13 40 40 6 40 23 40 39 10 16 40 40 40 40 38 40 40 40 40 40 40 40 40 40 38 40 39 40 40 40 40 39 38 40 40 40
    40 40 40 18 40 40 19 28 33 40 40 40 40 40 40 40 40 40 38 27 36 40 40 40 40 21 40 20 35 40 40 40 40 40 40 40 40
    38 40 40 40 4 32 40 40 39 40 39 40 40 40 40 40 17 40 40 25 40 39 40 40 40 40 40 40 40 40 39 40 40 40 40 40 40 40
    40 40 40 40 40 40 40 40 40 40 40 40 40 39 40 40 40 40 40 40 40 40 40 39 38 38 40 40 39 40 39 40 38 39 38 40 40
    40 40 40 40 40 40 40 40 39 40 38 40 40 38 38 40 40 40 40 40 40 40 40 40 40 40 40 40 38 40 40 40 40 40 39 40 40
    40 40 40 40 40 40 40 40 40 40 40 40 40 39 40 40 40 40 40 40 40 40 40 40 40 40 39 40 40 40 38 40 40 39 40 40 38
    40 40 40 40 40 40 40 40 40 40 40 39 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 31 40 40 40 40 40 40 40
    38 40 40 38 39 39 40 40 40 40 40 40 40 40 40 38 40 39 40 40 39 40 40 40 38 40 40 40 40 40 40 40 40 38 39 40 40
    40 40 40 40 38 40 40 40 40 40 40 40 40 40 40 40 38 39 40 40 40 40 40 40 40 39 40 40 40 40 40 40 38 40 40 40 38
    40 39 40 40 40 39 39 40 40 40 40 40 40 40 40 40 40 39 40 40 40 40 40 40 40 40 40 40 40 40 39 39 40 40 39 39 40
    40 40 40 38 40 40 38 39 39 40 39 40 39 38 40 40 40 40 40 40 40 40 40 40 40 39 40 38 40 39 40 40 40 40 40 39 39
    40 40 40 40 40 40 39 39 40 40 38 39 39 40 40 40 40 40 40 40 40 40 39 39 40 40 40 40 39 40 40 40 40 40 39 40 40
    39 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 39 38 40 40 40 40 40 40 40 39 38 39 40 38 39 40 39 40 39 40 40
    40 40 40 40 40 40 38 40 40 40 40 40 38 40 40 39 40 40 40 39 40 38 40 40 40 40 40 40 40 40 38 40 40 40 40 40 40
    40 40 40 40 40 40 40 40 40 40 39 38 40 40 38 40 40 38 40 40 40 40 40 40 40 40 40 39 40 40 40 40 40 40 40 40 40
    40 40 40 40 40 40 40 38 40 40 38 40 40 40 40 40 40 40 40 40 40 40 38 38 38 40 40 40 38 40 40 40 38 38 40 40 40
    40 40 40 40 40 40 40 40 40 40 40 40 40 40 38 40 40 40 40 40 40 40 40 40 40 40 40 40 38 40 38 39 40 40 40 40 40
    40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 39 40 40 40 40 40 40 40 40 40 40 40
    40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 40 39 40 39 40 40 40 40 38 38 40 40 40 38
    40 40 40 40 40 40 40 40 40 40 40 40 40 40 39 40 40 39 40 40 39 39 40 40 40 40 40 40 40 40 39 39 39 40 40 40 40
    39 40 40 40 40 40 40 40 40 39 40 40 40 40 40 39 40 40 40 40 40 40 40 40 40 40 40 40 40 40 38 40 40 40 40 40 40
    40 39 40 40 38 40 39 40 40 40 40 38 40 40 40 40 40 38 40 40 40 40 40 40 40 39 40 40 40 40 40 40 40 40 40 39 40
    40
""")

# Numbers of the images, from 1 (splits.mat, `trainNdxs` and `testNdxs`).
SPLITS = {
    "train": numbers("""
    3-8 10-13 19-20 22-27 44-45 48-55 58 64-75 80-83 92-116 120-124 130 135-136 138-152 156-166 170 177-179 203-206
    213-219 223-249 251-263 265-270 274-278 286-295 303-309 313-314 318-324 336-350 353-354 365-383 391-394 398-410
    415-429 436-440 449-461 467-468 478-507 514 527-530 534-536 540-548 552-554 572-578 584-590 595-602 608-611
    614-616 622-632 639-643 646-649 652-655 659-662 665-667 674-675 682-685 691-692 695-696 700-705 714-716 719-723
    729-730 735-742 745-758 788-799 805-809 815-820 824-832 847-849 853-856 863-868 872-905 909-916 920-925 929-931
    936-944 948-958 963-964 968-969 978-990 996-1000 1005-1009 1013-1020 1024-1031 1035-1037 1040-1047 1050-1051
    1054-1056 1059-1074 1085-1087 1097 1105 1110-1116 1120-1122 1132-1134 1137-1143 1159-1161 1168-1169 1172-1173
    1177-1178 1185-1191 1197-1200 1213-1215 1221-1225 1231-1232 1236-1246 1251-1253 1266-1274 1281-1284 1296
    1300-1301 1309-1313 1316-1328 1333-1334 1341-1346 1350-1352 1357-1363 1366-1367 1370-1383 1392-1393 1402-1406
    1415-1420 1425-1429 1434-1440
    """),
    "test": numbers("""
    1-2 9 14-18 21 28-43 46-47 56-57 59-63 76-79 84-91 117-119 125-129 131-134 137 153-155 167-169 171-176 180-202
    207-212 220-222 250 264 271-273 279-285 296-302 310-312 315-317 325-335 351-352 355-364 384-390 395-397 411-414
    430-435 441-448 462-466 469-477 508-513 515-526 531-533 537-539 549-551 555-571 579-583 591-594 603-607 612-613
    617-621 633-638 644-645 650-651 656-658 663-664 668-673 676-681 686-690 693-694 697-699 706-713 717-718 724-728
    731-734 743-744 759-787 800-804 810-814 821-823 833-846 850-852 857-862 869-871 906-908 917-919 926-928 932-935
    945-947 959-962 965-967 970-977 991-995 1001-1004 1010-1012 1021-1023 1032-1034 1038-1039 1048-1049 1052-1053
    1057-1058 1075-1084 1088-1096 1098-1104 1106-1109 1117-1119 1123-1131 1135-1136 1144-1158 1162-1167 1170-1171
    1174-1176 1179-1184 1192-1196 1201-1212 1216-1220 1226-1230 1233-1235 1247-1250 1254-1265 1275-1280 1285-1295
    1297-1299 1302-1308 1314-1315 1329-1332 1335-1340 1347-1349 1353-1356 1364-1365 1368-1369 1384-1391 1394-1401
    1407-1414 1421-1424 1430-1433 1441-1449
    """),
}
