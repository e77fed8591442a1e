"""The folder of a run: its name, that nobody else's files are in it, and which file of a run lies where."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from nonlocalseg.data.source import RECIPE
from nonlocalseg.files import check_folder, sweep_unfinished
from nonlocalseg.lock import LOCK, Lock
from nonlocalseg.models.storage import BEST, LAST
from nonlocalseg.runtime import training_rank

CHECKPOINT = Path("checkpoints") / "last.ckpt"
PREVIOUS = CHECKPOINT.with_name("previous.ckpt")
"""The one before, for where the last turns out to be damaged."""
METRICS, CURVES = "metrics.csv", "curves.png"
BROKEN = "broken"
"""Batches of steps that could not be taken, for whoever looks for the reason; never removed."""
EARLY = {RECIPE, LOCK, METRICS, "loggers.json", "checkpoints", "tensorboard", "wandb", "mlflow.db"}
"""What a run makes in its folder before its first checkpoint, and ..."""
LATER = {BEST, LAST, CURVES}
"""... from then on, beside `phase-1` and so on. Nothing else is ever removed."""
WRITTEN_IN = ("checkpoints", BEST, LAST)


class RunFolder:
    """Where a run writes. One phase writes to the folder itself, several write to `phase-1` and so on in it.

    Nothing is made before `claim`, which also settles a name that was left open. A further process of a run on several
    devices learns the name from the first one, when its trainer has connected them (`SameFolder`).
    """

    def __init__(self, out: str | Path | None, resume: str | Path | None, name: str, phases: int) -> None:
        """`name`: of a fresh folder below runs/, where neither `out` nor `resume` is given.

        Raises ValueError for an `out` that cannot be a folder or holds something.
        """
        self.several = phases > 1
        self.resumed = resume is not None
        self._name = name.replace("/", "-")
        self._path = Path(resume) if resume is not None else None
        self._lock: Lock | None = None
        self._killed_early = self.resumed and (self.path / LOCK).is_file() and not self._checkpointed()
        if out is not None:
            self._path = check_folder(out)
            if training_rank() == 0 and self._path.is_dir() and not _gone_early(self._path):
                raise ValueError(f"{out} is not empty: continue it with --resume {out}, or choose another --out")

    @property
    def named(self) -> bool:
        return self._path is not None

    @property
    def path(self) -> Path:
        if self._path is None:
            raise RuntimeError("the folder of the run has no name yet")
        return self._path

    @property
    def recipe(self) -> Path:
        return self.path / RECIPE

    def phase(self, index: int) -> Path:
        return self.path / f"phase-{index + 1}" if self.several else self.path

    def checkpoints(self, index: int) -> list[Path]:
        """What phase `index` of a resumed run may go on from, the newest first; nothing where it begins.

        FileNotFoundError where the first has none, except that the run was killed before it could write one.
        """
        if not self.resumed:
            return []
        paths = [self.phase(index) / name for name in (CHECKPOINT, PREVIOUS)]
        found = [path for path in paths if path.is_file()]
        if index == 0 and not found and not self._killed_early:
            raise FileNotFoundError(f"{self.path} holds no {paths[0].relative_to(self.path)} to resume from")
        return found

    def last(self, index: int) -> Path:
        """The model that phase `index` ends with, from which the next begins."""
        return self.phase(index) / LAST

    def claim(self) -> None:
        """Make the folder, in the first process; without a name, the first of NAME, NAME-2, ... that is free."""
        if training_rank() > 0:
            return
        if self._path is not None:
            self._path.mkdir(parents=True, exist_ok=True)
            self._lock = Lock(self._path)
            for place in _places(self._path):
                sweep_unfinished(place)  # of a run that was killed while it wrote
            if not self.resumed and not self.holds_checkpoints():
                _sweep(self._path, EARLY - {LOCK})  # of a run that was killed before its first checkpoint
            return
        Path("runs").mkdir(exist_ok=True)
        number = 1
        while self._path is None:
            folder = Path("runs") / (self._name if number == 1 else f"{self._name}-{number}")
            try:
                folder.mkdir()
                self._lock, self._path = Lock(folder), folder
            except FileExistsError:  # also by a run that began at the same time
                number += 1

    def release(self) -> None:
        """Let other runs in again."""
        if self._lock is not None:
            self._lock.release(keep=self._killed_early and not self._checkpointed())
            self._lock = None

    def holds_checkpoints(self) -> bool:
        """Whether there is anything to go on from."""
        return self._path is not None and (self.resumed or self._checkpointed())

    def _checkpointed(self) -> bool:
        return any(path.is_file() for name in (CHECKPOINT, PREVIOUS) for path in self.path.rglob(name.name))

    def discard(self) -> None:
        """Remove what a run with nothing to go on from has made, which would be in the way of the next try."""
        if training_rank() == 0 and self._path is not None:
            _sweep(self._path, EARLY | LATER)
            with suppress(OSError):  # somebody else's files are in it
                self._path.rmdir()

    def agree(self, path: str) -> None:
        """What the first process has claimed."""
        self._path = Path(path)


def _gone_early(folder: Path) -> bool:
    """Whether the folder is empty, or holds only what a run left that was killed before its first checkpoint."""
    names = {path.name for path in folder.iterdir()}
    names.discard(BROKEN)
    return not names or (LOCK in names and names <= EARLY and not any(folder.rglob("*.ckpt")))


def _sweep(folder: Path, names: set[str]) -> None:
    """Remove what is called so, and phases where models are among it."""
    for path in folder.iterdir():
        if path.name in names or (path.name.startswith("phase-") and names >= LATER):
            with suppress(OSError):  # the disk has become read-only
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _places(folder: Path) -> Iterator[Path]:
    """The folders in which a run writes files."""
    for phase in (folder, *sorted(folder.glob("phase-*"))):
        yield from (place for place in (phase, *(phase / name for name in WRITTEN_IN)) if place.is_dir())
