"""Folders that fill up: which files have come, are whole, and were not handed out before."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from nonlocalseg.images import SUFFIXES as PHOTOGRAPHS
from nonlocalseg.images import images_below, maker_of
from nonlocalseg.inference.clips import SUFFIXES as VIDEOS
from nonlocalseg.inference.clips import videos_below
from nonlocalseg.inference.predictor import KINDS, MAKER
from nonlocalseg.inference.sources import Listed, stamp_of

PAUSE = 1.0
"""Seconds between two looks."""
PATIENCE = 10.0
"""Seconds without a change after which a file that cannot be read is broken, rather than still being written."""


class Arrivals:
    """The photographs and videos below `folders`, but for what a prediction into `out` writes.

    A file is handed out when two looks have found it with the same size and time, and again when these have changed.
    """

    def __init__(self, folders: Sequence[str | Path], out: Path) -> None:
        self._folders = [Path(folder).expanduser() for folder in folders]
        for folder in self._folders:
            if not folder.is_dir():
                raise ValueError(f"--watch: {folder} is no folder; give the folders that fill up")
        self._common = os.path.commonpath([os.path.abspath(folder) for folder in self._folders])
        self._written = {os.path.abspath(out / kind) for kind in KINDS}
        self._stamps: dict[Path, str] = {}
        self._since: dict[Path, float] = {}
        self._given: dict[Path, str] = {}

    def look(self) -> list[Listed]:
        """What has come to rest since the last look, in the order of the names."""
        stamps = {path: stamp_of(path) for folder in self._folders for path in self._below(folder)}
        now, ready = time.monotonic(), []
        for path, stamp in stamps.items():
            if not stamp or self._stamps.get(path) != stamp:
                self._since[path] = now
            elif self._given.get(path) != stamp:
                self._given[path] = stamp
                if not (path.suffix.lower() == ".png" and maker_of(path) == MAKER):
                    ready.append(self._listed(path, stamp))
        self._stamps = stamps
        for gone in self._since.keys() - stamps.keys():
            del self._since[gone]
            self._given.pop(gone, None)
        return ready

    def puts_off(self, item: Listed) -> bool:
        """Whether an input that could not be read may still be being written: it is then handed out once more."""
        path = Path(item.place)
        if stamp_of(path) == item.stamp and time.monotonic() - self._since.get(path, 0.0) > PATIENCE:
            return False
        self._given.pop(path, None)
        return True

    def _below(self, folder: Path) -> Iterable[Path]:
        found = sorted({*images_below(folder), *videos_below(folder)})
        return (path for path in found if not self._written & {os.path.abspath(one) for one in path.parents})

    def _listed(self, path: Path, stamp: str) -> Listed:
        place = os.path.abspath(path)
        return Listed(place, Path(os.path.relpath(place, self._common)).as_posix(), str(path), stamp)


def is_video(item: Listed) -> bool:
    """Of what `Arrivals` hands out."""
    suffix = Path(item.place).suffix.lower()
    return suffix in VIDEOS - PHOTOGRAPHS
