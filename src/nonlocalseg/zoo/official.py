"""Checkpoints that the authors of ANN and of GALD published where no program can fetch them: where to put the files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nonlocalseg.choices import pick
from nonlocalseg.files import cache_folder
from nonlocalseg.view import View, find_view

OFFICIAL = "official:"
"""Before a name, it says that it is one of the authors' own checkpoints."""


@dataclass(frozen=True)
class OfficialFile:
    """source: for `convert`. page: where a browser gets the file. setting: name of the view that it was published with.
    figure: mIoU in per cent, on the split."""

    source: str
    page: str
    setting: str
    figure: str
    split: str = "val"
    terms: str = "Cityscapes: not for commercial use"
    data: str = "cityscapes"

    @property
    def published(self) -> str:
        """Its figure, for people."""
        return f"mIoU {self.figure} on {self.data}, {self.split}"

    @property
    def view(self) -> View:
        return find_view(self.setting)


_ANN, _GALD = "https://github.com/MendelXu/ANN", "https://github.com/lxtGH/GALD-DGCNet"
FILES: Mapping[str, OfficialFile] = {
    "ann-r101-cityscapes": OfficialFile("ann-official", _ANN, "ann-single", "79.9"),
    "ann-r101-cityscapes-test": OfficialFile("ann-official", _ANN, "ann-cityscapes-test", "81.3", "test"),
    "dgc-r50-cityscapes": OfficialFile("gald-official", _GALD, "gald-crop", "79.6 to 79.8"),
    "dgc-r101-cityscapes": OfficialFile("gald-official", _GALD, "gald-crop", "80.3 to 80.4"),
}
"""The repositories link these on Google Drive, whose pages ask before they hand out files of this size."""


def find_official(name: str) -> OfficialFile:
    """The file called `name`; ValueError that names the nearest where there is none."""
    return FILES[pick("official checkpoint", name.removeprefix(OFFICIAL), FILES)]


def path_of(name: str) -> Path:
    """Where the file lies. Raises FileNotFoundError that says where to get it and where to put it."""
    found, short = find_official(name), name.removeprefix(OFFICIAL)
    place = cache_folder() / "official" / f"{short}.pth"
    if not place.is_file():
        raise FileNotFoundError(
            f"{OFFICIAL}{short} has no address that a program can fetch: download it from the links on {found.page} and "
            f"save it as {place}"
        )
    return place
