"""Where inputs come from: one `Listed` for each, and the file that a model can read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nonlocalseg.inference.photographs import find_photographs


@dataclass(frozen=True)
class Listed:
    """One input.

    input: what the manifest calls it, the same from one call to the next. name: what its pictures are called, a
    relative path. place: the file that holds it. stamp: changes when that file does; empty where that is not known.
    """

    input: str
    name: str
    place: str
    stamp: str = ""

    @contextmanager
    def fetched(self) -> Iterator[Path]:
        """A file on this machine that holds nothing else, as long as the block runs."""
        yield Path(self.place)


@dataclass(frozen=True)
class Inputs:
    """listed: in their order, each once, with names of their own. foreign: files that are no images by their names.
    own: pictures that an earlier prediction wrote."""

    listed: list[Listed]
    foreign: list[Path]
    own: list[Path]


def find_inputs(paths: Iterable[str], out: Path) -> Inputs:
    """The images among files, folders and patterns, as `find_photographs` has it."""
    found = find_photographs(paths, out)
    listed = [Listed(os.path.abspath(path), name, str(path), stamp_of(path)) for path, name in found.names.items()]
    return Inputs(listed, found.foreign, found.own)


def stamp_of(path: Path) -> str:
    """Size and time of a file on this machine."""
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_size}-{status.st_mtime_ns}"
