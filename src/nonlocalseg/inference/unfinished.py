"""Work on one large image that outlives its process: a hidden folder beside the result, with which the same call goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from nonlocalseg.files import write_text
from nonlocalseg.inference.readers import FileCanvas
from nonlocalseg.inference.resizing import Extent
from nonlocalseg.inference.windows import Window
from nonlocalseg.lock import LOCK, Lock

WORK, CLASSES, WINDOWS = "work.json", "classes.npy", "windows.txt"


class Unfinished:
    """What is known of an image so far, in a folder of its own.

    settled: what was chosen when the work began, such as the size of tiles; None where it begins now.
    """

    def __init__(self, folder: Path, identity: Mapping[str, object]) -> None:
        self.folder, self._identity = folder, json.loads(json.dumps(identity))
        self.settled: Mapping[str, object] | None = None
        found: object = None
        with suppress(OSError, ValueError):
            found = json.loads((folder / WORK).read_text(encoding="utf-8"))
        if isinstance(found, dict) and found.get("identity") == self._identity:
            self.settled = found["settled"]
            return
        for left in folder.iterdir():  # of another model, view or file
            if left.is_dir():
                shutil.rmtree(left)
            elif left.name != LOCK:
                left.unlink()

    def settle(self, chosen: Mapping[str, object]) -> None:
        """Begin, with what was chosen for good."""
        write_text(self.folder / WORK, json.dumps({"identity": self._identity, "settled": chosen}))
        self.settled = chosen

    @property
    def begun(self) -> bool:
        """Whether any of it is done."""
        return any(path.stat().st_size > 0 for path in [*self.folder.glob("*/steps.txt"), *self.folder.glob(WINDOWS)])

    def canvas(self, size: Extent, num_classes: int) -> Resumed:
        return Resumed(self.folder, size, num_classes)


class Resumed(FileCanvas):
    """Classes in a .npy file, of which the windows are known that are written: `done`."""

    def __init__(self, folder: Path, size: Extent, num_classes: int) -> None:
        self._journal = folder / WINDOWS
        lines = self._journal.read_text().splitlines(keepends=True) if self._journal.is_file() else []
        whole = [line for line in lines if line.endswith("\n")]
        if whole != lines:
            write_text(self._journal, "".join(whole))
        self.done = {Window(*map(int, line.split())) for line in whole}
        super().__init__(folder / CLASSES, size, num_classes, keep=bool(self.done))

    def write(self, window: Window, classes: torch.Tensor) -> None:
        super().write(window, classes)
        with self._journal.open("ab", buffering=0) as journal:
            journal.write(f"{' '.join(map(str, window))}\n".encode())
        self.done.add(window)


@contextmanager
def working_on(target: Path, identity: Mapping[str, object]) -> Iterator[Unfinished]:
    """The work on the image whose result will be `target`. identity: what must be the same for it to go on.

    The folder goes when the block ends, or raises ValueError, or nothing was done. Whatever else ends the block, or the
    process, leaves it to the next call. Raises ValueError where another process is at it.
    """
    folder = place_of(target)
    folder.mkdir(parents=True, exist_ok=True)
    lock = Lock(folder)
    done = True
    try:
        work = Unfinished(folder, identity)
        try:
            yield work
        except ValueError:
            raise
        except BaseException:
            done = not work.begun
            raise
    finally:
        if done:
            shutil.rmtree(folder, ignore_errors=True)
        lock.release(keep=True)


def place_of(target: Path) -> Path:
    """The folder of the work on `target`."""
    return target.with_name(f".{target.name}.unfinished")
