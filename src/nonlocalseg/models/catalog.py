"""The models by name: which head, with which options; a new head is one line here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nonlocalseg.heads.ann import (
    AFNBOptions,
    ANNHead,
    ANNOptions,
    FNBNonLocalOptions,
    FNBOptions,
    FusionNonLocalOptions,
    FusionOptions,
)
from nonlocalseg.heads.apc import APCHead, APCOptions
from nonlocalseg.heads.base import Head, HeadOptions
from nonlocalseg.heads.ccnet import CCHead, CCOptions
from nonlocalseg.heads.danet import DAHead, DAOptions
from nonlocalseg.heads.deeplabv3plus import DeepLabV3PlusHead, DeepLabV3PlusOptions
from nonlocalseg.heads.denseaspp import DenseASPPHead, DenseASPPOptions
from nonlocalseg.heads.dgc import DGCHead, DGCOptions
from nonlocalseg.heads.dm import DMHead, DMOptions
from nonlocalseg.heads.dnl import DNLHead, DNLOptions
from nonlocalseg.heads.emanet import EMAHead, EMAOptions
from nonlocalseg.heads.encnet import EncHead, EncOptions
from nonlocalseg.heads.fcn import APNBOptions, FCNHead, FCNOptions, NonLocalOptions
from nonlocalseg.heads.gald import GALDHead, GALDOptions
from nonlocalseg.heads.gcnet import GCHead, GCOptions
from nonlocalseg.heads.isa import ISAHead, ISAOptions
from nonlocalseg.heads.ocr import OCRHead, OCROptions
from nonlocalseg.heads.psanet import PSAHead, PSAOptions
from nonlocalseg.heads.upernet import UPerNetHead, UPerNetOptions


@dataclass(frozen=True)
class Model:
    """A key of `MODELS`: the head, and its options as they are unless others are given."""

    description: str
    head: type[Head[Any]]
    options: HeadOptions


MODELS: dict[str, Model] = {
    "fcn": Model("the papers' baseline", FCNHead, FCNOptions()),
    "nonlocal": Model("baseline + NB", FCNHead, NonLocalOptions()),
    "apnb": Model("baseline + APNB", FCNHead, APNBOptions()),
    "fusion": Model("baseline + common fusion", ANNHead, FusionOptions()),
    "fnb": Model("baseline + FNB", ANNHead, FNBOptions()),
    "afnb": Model("baseline + AFNB", ANNHead, AFNBOptions()),
    "fusion_nonlocal": Model("common fusion + NB", ANNHead, FusionNonLocalOptions()),
    "fnb_nonlocal": Model("FNB + NB", ANNHead, FNBNonLocalOptions()),
    "ann": Model("AFNB + APNB, the full network of ANN", ANNHead, ANNOptions()),
    "psp": Model(
        "pyramid pooling alone", GALDHead, GALDOptions(aggregate="psp", distribute="none", aggregate_stride=1)
    ),
    "aspp": Model(
        "atrous pyramid alone", GALDHead, GALDOptions(aggregate="aspp", distribute="none", aggregate_stride=1)
    ),
    "cgnl": Model("compact generalised non-local alone", GALDHead, GALDOptions(aggregate="cgnl", distribute="none")),
    "gald": Model("any aggregation with any distribution, in three arrangements", GALDHead, GALDOptions()),
    "galdv1": Model("CGNL + LDv1", GALDHead, GALDOptions(aggregate="cgnl", distribute="ldv1")),
    "galdv2": Model("ASPP + LDv2", GALDHead, GALDOptions(aggregate="aspp", distribute="ldv2")),
    "encnet": Model("context encoding, with a loss on which classes there are", EncHead, EncOptions()),
    "gcnet": Model("one global context for all positions", GCHead, GCOptions()),
    "danet": Model("attention over positions beside attention over channels", DAHead, DAOptions()),
    "dnl": Model("disentangled non-local: whitened pairs and one global context", DNLHead, DNLOptions()),
    "ccnet": Model("criss-cross attention, twice", CCHead, CCOptions()),
    "isa": Model("interlaced sparse attention: far apart, then in windows", ISAHead, ISAOptions()),
    "emanet": Model("a few bases by expectation maximisation", EMAHead, EMAOptions()),
    "psanet": Model("masks that every position predicts, to collect and to distribute", PSAHead, PSAOptions()),
    "deeplabv3plus": Model("separable ASPP, refined with a lower stage", DeepLabV3PlusHead, DeepLabV3PlusOptions()),
    "upernet": Model("pyramid pooling, then a feature pyramid", UPerNetHead, UPerNetOptions()),
    "apc": Model("adaptive contexts over cells of several sizes", APCHead, APCOptions()),
    "dm": Model("filters of several sizes, made for each image", DMHead, DMOptions()),
    "ocr": Model("object-contextual representations over coarse scores", OCRHead, OCROptions()),
    "dgc": Model("graphs over positions and over features", DGCHead, DGCOptions()),
    "denseaspp": Model("densely connected dilated convolutions", DenseASPPHead, DenseASPPOptions()),
}
