"""The data sets by the names that the command line knows."""

from __future__ import annotations

from nonlocalseg.data.camvid import CamVid
from nonlocalseg.data.dataset import SegmentationDataset
from nonlocalseg.data.folder import Folder
from nonlocalseg.data.synthetic import Synthetic

DATASETS: dict[str, type[SegmentationDataset]] = {
    "camvid": CamVid,
    "folder": Folder,
    "synthetic": Synthetic,
}
