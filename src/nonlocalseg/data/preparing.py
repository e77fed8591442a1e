"""`prepare()`: label images, made once, of downloads that are too slow to read at every start."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nonlocalseg import images
from nonlocalseg.choices import pick
from nonlocalseg.data.catalog import DATASETS
from nonlocalseg.data.cityscapes import polygon_labels
from nonlocalseg.data.dataset import SegmentationDataset
from nonlocalseg.data.layouts import Task
from nonlocalseg.data.pascal_context import merged_labels
from nonlocalseg.data.shards import is_sharded

# What there is to do: data set -> its tasks, in an order in which the lists of images come last.
PREPARATIONS: dict[str, Callable[[Path], Iterator[Task]]] = {
    "cityscapes": polygon_labels,
    "pascal_context": merged_labels,
}
Progress = Callable[[Iterable[Any], int], Iterable[Any]]
"""Wraps the finished files, given with their number, for a progress bar."""


@dataclass(frozen=True)
class Prepared:
    """What `prepare` did: files written, files that were there already, and the pairs of each split afterwards.

    `published` has the pairs of the published data set by split, as far as known; `missing` why a split is not there.
    """

    written: int
    kept: int
    pairs: dict[str, int]
    published: Mapping[str, int] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def text(self) -> str:
        done = f"{self.written} files written, {self.kept} were there" if self.written + self.kept else "nothing to do"
        return "\n".join([f"{done}; image/label pairs: {', '.join(map(self._spell, self.pairs))}", *self._missing()])

    def _spell(self, split: str) -> str:
        count, published = self.pairs[split], self.published.get(split, self.pairs[split])
        return f"{count} in {split}" + (f" (published: {published})" if count != published else "")

    def _missing(self) -> list[str]:
        return [f"split {split} is not there: {reason}" for split, reason in self.missing.items()]


def prepare(data: str, root: str | Path, workers: int | None = None, progress: Progress | None = None) -> Prepared:
    """Make what the data set `data` in `root` lacks, in parallel, and check the result.

    A data set that needs no preparation, or that is there in a form that needs none, is only checked. Files are written
    whole or not at all and those that are there are kept, so an interrupted run goes on where it was. Each label image
    is read back once written, and at the end every split whose images are there is opened.

    workers: threads; by default one for each core. Raises `FileNotFoundError` and `ValueError` for a download that
    is missing or damaged, and `ValueError` for an unknown `data`.
    """
    kind = DATASETS[pick("data set", data, DATASETS)]
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; root is the folder of the data set")
    if is_sharded(folder):
        raise ValueError(f"--root: {folder} holds shards already; give the data set's own files")
    try:
        tasks = list(PREPARATIONS[data](folder)) if data in PREPARATIONS else []
    except FileNotFoundError:
        with suppress(FileNotFoundError):
            return Prepared(0, 0, *_open_splits(kind, folder))
        raise
    missing = [task for task in tasks if not task[0].exists()]
    for _ in (progress or _silent)(_run(missing, workers), len(missing)):
        pass
    return Prepared(len(missing), len(tasks) - len(missing), *_open_splits(kind, folder))


def _silent(finished: Iterable[Any], _count: int) -> Iterable[Any]:
    return finished


def _run(tasks: list[Task], workers: int | None) -> Iterator[Path]:
    """The finished files, in order. Threads: most of the time goes to PNG compression, which runs outside the lock."""
    pool = ThreadPoolExecutor(workers or os.cpu_count() or 1)
    try:
        yield from pool.map(_do, tasks)
    finally:
        pool.shutdown(cancel_futures=True)  # after a mistake or Ctrl-C: finish what is being written, nothing more


def _do(task: Task) -> Path:
    path, function, arguments = task
    function(path, *arguments)
    if path.suffix == ".png":
        images.read_mask(path)
    return path


def _open_splits(
    kind: type[SegmentationDataset], root: Path
) -> tuple[dict[str, int], Mapping[str, int], dict[str, str]]:
    """The pairs of each split that is there, the published ones, and why the others are not.

    Raises the error of the first split where none is there.
    """
    pairs: dict[str, int] = {}
    missing: dict[str, str] = {}
    for split in kind.disjoint_splits(root, kind.Options()):
        try:
            pairs[split] = len(kind(root, split))
        except FileNotFoundError as error:
            missing[split] = str(error)
    if not pairs and missing:
        raise FileNotFoundError(next(iter(missing.values())))
    return pairs, kind.expected_counts, missing
