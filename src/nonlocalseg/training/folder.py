"""The folder of a run: its name, that nobody else's files are in it, and which file of a run lies where."""

from __future__ import annotations

import shutil
from pathlib import Path

from nonlocalseg.files import check_folder
from nonlocalseg.runtime import rank

LAST = Path("checkpoints") / "last.ckpt"
RECIPE = "recipe.yaml"


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
        if out is not None:
            self._path = check_folder(out)
            if rank() == 0 and self._path.is_dir() and any(self._path.iterdir()):
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

    def checkpoint(self, index: int) -> Path | None:
        """What phase `index` of a resumed run goes on from; None where it begins. FileNotFoundError for the first."""
        if not self.resumed:
            return None
        path = self.phase(index) / LAST
        if index == 0 and not path.is_file():
            raise FileNotFoundError(f"{self.path} holds no {path.relative_to(self.path)} to resume from")
        return path if path.is_file() else None

    def last(self, index: int) -> Path:
        """The model that phase `index` ends with, from which the next begins."""
        return self.phase(index) / "last"

    def claim(self) -> None:
        """Make the folder, in the first process; without a name, the first of NAME, NAME-2, ... that is free."""
        if rank() > 0:
            return
        if self._path is not None:
            self._path.mkdir(parents=True, exist_ok=True)
            return
        Path("runs").mkdir(exist_ok=True)
        number = 1
        while self._path is None:
            folder = Path("runs") / (self._name if number == 1 else f"{self._name}-{number}")
            try:
                folder.mkdir()
                self._path = folder
            except FileExistsError:  # also by a run that began at the same time
                number += 1

    def holds_checkpoints(self) -> bool:
        """Whether there is anything to go on from."""
        return self._path is not None and (self.resumed or any(self._path.rglob(LAST.name)))

    def discard(self) -> None:
        """Remove a folder with nothing to go on from, which would be in the way of the next try."""
        if rank() == 0 and self._path is not None:
            shutil.rmtree(self._path, ignore_errors=True)

    def agree(self, path: str) -> None:
        """What the first process has claimed."""
        self._path = Path(path)
