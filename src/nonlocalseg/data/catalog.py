"""The data sets by the names that the command line knows."""

from __future__ import annotations

from nonlocalseg.data.ade20k import ADE20K
from nonlocalseg.data.camvid import CamVid
from nonlocalseg.data.cityscapes import Cityscapes
from nonlocalseg.data.coco_stuff import COCOStuff10K, COCOStuff164K
from nonlocalseg.data.dataset import SegmentationDataset
from nonlocalseg.data.folder import Folder
from nonlocalseg.data.isaid import ISAID
from nonlocalseg.data.isprs import Potsdam, Vaihingen
from nonlocalseg.data.loveda import LoveDA
from nonlocalseg.data.mapillary_vistas import MapillaryVistas
from nonlocalseg.data.nyudv2 import NYUDv2
from nonlocalseg.data.pascal_context import PASCALContext
from nonlocalseg.data.synthetic import Synthetic
from nonlocalseg.data.voc2012 import VOC2012

DATASETS: dict[str, type[SegmentationDataset]] = {
    "ade20k": ADE20K,
    "camvid": CamVid,
    "cityscapes": Cityscapes,
    "coco_stuff_10k": COCOStuff10K,
    "coco_stuff_164k": COCOStuff164K,
    "folder": Folder,
    "isaid": ISAID,
    "loveda": LoveDA,
    "mapillary_vistas": MapillaryVistas,
    "nyudv2": NYUDv2,
    "pascal_context": PASCALContext,
    "potsdam": Potsdam,
    "synthetic": Synthetic,
    "vaihingen": Vaihingen,
    "voc2012": VOC2012,
}
