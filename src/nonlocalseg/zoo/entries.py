"""`Entry`: one public checkpoint of mmsegmentation's model zoo; found by its name or a short form of it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from nonlocalseg.choices import hint
from nonlocalseg.view import View, mmsegmentation_view

PREFIX = "mmseg:"
"""Before a name, it says that it is one of mmsegmentation's zoo."""

_RESEARCH = "for research and education, not for commercial use"
TERMS: Mapping[str, str] = {
    "ade20k": f"ADE20K: images {_RESEARCH}; annotations BSD-3-Clause",
    "camvid": "CamVid: its page names no licence and asks to be cited (Brostow, Fauqueur and Cipolla 2009)",
    "cityscapes": "Cityscapes: not for commercial use",
    "coco_stuff_10k": "COCO-Stuff: annotations CC BY 4.0, images under Flickr's terms of use",
    "coco_stuff_164k": "COCO-Stuff: annotations CC BY 4.0, images under Flickr's terms of use",
    "isaid": f"iSAID, on images of DOTA: {_RESEARCH}",
    "loveda": "LoveDA: CC BY-NC-SA 4.0",
    "mapillary_vistas": "Mapillary Vistas, research edition: CC BY-NC-SA 4.0",
    "pascal_context": "PASCAL Context, on images of PASCAL VOC: Flickr's terms of use",
    "potsdam": "ISPRS Potsdam: for research, by the terms of the ISPRS benchmark",
    "vaihingen": "ISPRS Vaihingen: for research, by the terms of the ISPRS benchmark",
    "voc2012": "PASCAL VOC 2012 and SBD: images under Flickr's terms of use",
}
"""What a data set's owners allow; the weights themselves are published under Apache-2.0."""


@dataclass(frozen=True)
class Entry:
    """A checkpoint. Figures are per cent: miou of its `view`, miou_flip of six scales, each mirrored as well.

    network: mmsegmentation's config of the model. digest: the beginning of the file's SHA-256. megabytes: of its tensors.
    """

    name: str
    model: str
    backbone: str
    data: str
    num_classes: int
    crop: tuple[int, int]
    schedule: str
    batch_size: int
    miou: float
    miou_flip: float | None
    test: Mapping[str, object]
    address: str
    digest: str
    megabytes: int
    network: Mapping[str, Any] = field(repr=False)

    @property
    def config(self) -> Mapping[str, object]:
        """`network`, with its number of classes."""
        heads = self.network["decode_head"]
        more = {"num_classes": self.num_classes}
        counted = [head | more for head in heads] if isinstance(heads, list) else heads | more
        return {**self.network, "decode_head": counted}

    @property
    def file(self) -> str:
        """The name of the file."""
        return self.path.rpartition("/")[2]

    @property
    def path(self) -> str:
        """Where the file lies on its server."""
        return urlsplit(self.address).path.lstrip("/")

    @property
    def labels(self) -> str:
        """The data set, and which of its lists of classes: PASCAL Context has one with and one without background."""
        return "pascal_context_59" if self.data == "pascal_context" and self.num_classes == 59 else self.data

    @property
    def data_options(self) -> dict[str, object]:
        """The data set's own options that give these classes."""
        return {"background": self.num_classes == 60} if self.data == "pascal_context" else {}

    @property
    def view(self) -> View:
        """The published test setting."""
        return mmsegmentation_view(self.labels, self.crop, self.test)

    @property
    def terms(self) -> str:
        """What the owners of its training data allow."""
        return TERMS[self.data]

    @property
    def short(self) -> str:
        """The short form that all entries of its model, backbone and classes share."""
        return "-".join((self.model, self.backbone, _hyphens(self.labels)))

    def published(self) -> str:
        """Its figures, for people."""
        several = "" if self.miou_flip is None else f", {self.miou_flip} with six scales and flips"
        return f"mIoU {self.miou}{several}, on {self.labels}"


@cache
def all_entries() -> tuple[Entry, ...]:
    """All of them, by name."""
    content = json.loads(files("nonlocalseg.zoo").joinpath("mmsegmentation.json").read_text(encoding="utf-8"))
    networks = content["networks"]
    return tuple(
        Entry(**{**given, "crop": tuple(given["crop"]), "network": networks[given["network"]]})
        for given in content["entries"]
    )


def find_entry(name: str) -> Entry:
    """The entry called `name`, with or without its prefix; or, of a short form such as `ann-r101-ade20k`, the one with the
    best published figure among all of this head, backbone and data set. Crop and schedule may follow:
    `ann-r101-cityscapes-769x769-80k`.

    Raises ValueError for an unknown name, which suggests the nearest, and for a form that several networks or data sets
    share, which lists them.
    """
    wanted = name.removeprefix(PREFIX)
    known = {entry.name: entry for entry in all_entries()}
    if wanted in known:
        return known[wanted]
    found = [(left, entry) for entry in known.values() if (left := _left(entry, _hyphens(wanted))) is not None]
    whole = [entry for left, entry in found if not left]
    kinds = sorted({(entry.model, entry.labels) for entry in whole})
    if len(kinds) == 1:
        return max(whole, key=lambda entry: (entry.miou, entry.miou_flip or 0))
    if found:
        forms = sorted({entry.short for _, entry in found})
        shown = ", ".join(forms[:12]) + (f" and {len(forms) - 12} more" if len(forms) > 12 else "")
        raise ValueError(f"{PREFIX}{wanted} may be any of {shown}; `nonlocalseg list zoo` lists them")
    near = hint(wanted, [*known, *{entry.short for entry in known.values()}])
    raise ValueError(f"{PREFIX}{wanted} is not in the zoo: {near}; `nonlocalseg list zoo` lists it")


def _hyphens(name: str) -> str:
    return name.lower().replace("_", "-")


def _left(entry: Entry, wanted: str) -> list[str] | None:
    """The parts of a name that `wanted` does not give, of model, backbone and data; None where it says something else."""
    theirs = {part for part in re.split(r"[_]", entry.name)[:2] if part != entry.backbone}
    parts = (
        {entry.model, *theirs},
        {entry.backbone, entry.backbone.split("-")[0] if entry.backbone[0] == "r" else "mobilenet-v2"},
        {_hyphens(entry.labels)},
        {"x".join(map(str, entry.crop))},
        {entry.schedule},
    )
    rest, left = f"{wanted}-", []
    for number, forms in enumerate(parts):
        taken = next((form for form in sorted(forms, key=len, reverse=True) if rest.startswith(f"{form}-")), None)
        if taken is not None:
            rest = rest[len(taken) + 1 :]
        elif number < 3:
            left.append(next(iter(forms)))
    return None if rest else left
