"""Which photographs are to be labelled, and what their pictures are called: the same from one call to the next."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nonlocalseg.data.annotations import WRITTEN as ANNOTATED
from nonlocalseg.images import SUFFIXES, images_below, maker_of
from nonlocalseg.inference.predictor import KINDS, MAKER

AREAS, MANIFEST = "areas.csv", "manifest.csv"
"""What is written beside the pictures."""


@dataclass(frozen=True)
class Photographs:
    """names: image file -> what its pictures are called. foreign: files that are no images by their names. own: pictures
    that an earlier prediction wrote."""

    names: dict[Path, str]
    foreign: list[Path]
    own: list[Path]


def find_photographs(paths: Iterable[str], out: Path) -> Photographs:
    """The images among files, folders (searched through, but for what is hidden) and patterns, `**` too.

    A photograph is called by its path, suffix and all, below the folder, or the fixed part of the pattern, that was
    given; below what is common to these, where there are several. What lies beside it does not count. `out` is where
    the pictures go. Raises FileNotFoundError for a path or pattern that matches nothing, and ValueError where there is
    no image.
    """
    found: dict[Path, None] = {}
    foreign, bases = [], []
    for given in paths:
        path = Path(given).expanduser()
        matches = [path] if path.exists() else sorted(Path(match) for match in glob.glob(str(path), recursive=True))
        if not matches:
            raise FileNotFoundError(f"{given}: no such file, folder or pattern match")
        bases.append(os.path.abspath(fixed_part(path)))
        for match in matches:
            found |= dict.fromkeys(images_below(match) if match.is_dir() else [match])
            foreign += _others_below(match, out) if match.is_dir() else []
    own = [path for path in found if maker_of(path) == MAKER]
    common = os.path.commonpath(bases)
    names = {path: Path(os.path.relpath(os.path.abspath(path), common)).as_posix() for path in found if path not in own}
    if not names:
        reason = "only pictures that an earlier prediction wrote" if own else "no images here"
        raise ValueError(f"{' '.join(paths)}: {reason}; expected one of {' '.join(sorted(SUFFIXES))}")
    return Photographs(names, list(dict.fromkeys(foreign)), own)


def fixed_part(path: Path) -> Path:
    """The folder below which all files lie that a path, folder or pattern stands for."""
    if path.is_dir():
        return path
    if path.exists():
        return path.parent
    last = len(path.parts) - 1
    first = next((i for i, part in enumerate(path.parts) if any(sign in part for sign in "*?[")), last)
    return Path(*path.parts[: min(first, last)])


def _others_below(folder: Path, out: Path) -> list[Path]:
    """The files that are no images by their names, but for hidden ones and what a prediction writes."""
    written = {out / name for name in (AREAS, MANIFEST, *KINDS, "probabilities", *ANNOTATED)}
    others = (path for path in sorted(folder.rglob("*")) if path.suffix.lower() not in SUFFIXES and path.is_file())
    return [
        path
        for path in others
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and not written & {path, *path.parents}
    ]
