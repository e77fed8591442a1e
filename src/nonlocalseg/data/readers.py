"""The processes that read images: where one is killed or stands still, it is told which file it was reading."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

from torch.utils.data import DataLoader, Dataset, get_worker_info

SILENCE = 300.0
"""Seconds without an image after which a process that reads images is taken for stopped."""
ENDED = re.compile(r"DataLoader worker .*(exited unexpectedly|killed by signal)|received \d+ items of ancillary data")


class ReaderEnded(RuntimeError):
    """A process that reads images was killed, or does not answer; says what it was reading."""


class Images(Protocol):
    """A data set whose length is known."""

    def __getitem__(self, index: Any, /) -> Any: ...

    def __len__(self) -> int: ...


class Noted(Dataset[Any]):
    """`images`, of which it is noted in memory that all processes share which each of them is reading.

    They are asked for by index, or by a tuple that begins with it.
    """

    def __init__(self, images: Images, workers: int) -> None:
        self.images = images
        self._notes = multiprocessing.RawArray("q", 2 * workers)  # of each its process, and the index plus one

    def __getitem__(self, asked: Any) -> Any:
        worker = get_worker_info()
        if worker is None:
            return self.images[asked]
        self._notes[2 * worker.id] = os.getpid()
        self._notes[2 * worker.id + 1] = 1 + (asked[0] if isinstance(asked, tuple) else asked)
        found = self.images[asked]
        self._notes[2 * worker.id + 1] = 0
        return found

    def __len__(self) -> int:
        return len(self.images)

    def under_way(self) -> dict[int, int]:
        """The number of each process that is reading, and the index of what it reads."""
        numbers = list(self._notes)
        return {process: index - 1 for process, index in zip(numbers[::2], numbers[1::2], strict=True) if index}


class WatchedLoader(DataLoader[Any]):
    """A loader whose processes are killed where they give nothing for `SILENCE` seconds.

    PyTorch's own timeout does not: for an image that is ready the process that read it is asked as well, without end.
    """

    def __init__(self, images: Images, file_of: Callable[[int], str], workers: int, **options: Any) -> None:
        """`file_of` names the file at an index; `options` are those of torch's loader."""
        self.noted, self.file_of = Noted(images, workers), file_of
        self.processes: set[BaseProcess] = set()
        self.silent = False
        super().__init__(self.noted, num_workers=workers, **options)

    def __iter__(self) -> Any:
        before = set(multiprocessing.active_children())
        batches = super().__iter__()
        self.processes |= set(multiprocessing.active_children()) - before
        return self._watched(batches)

    def _watched(self, batches: Iterator[Any]) -> Iterator[Any]:
        while True:
            watch = threading.Timer(SILENCE, self._give_up)
            watch.daemon = True
            watch.start()
            try:
                batch = next(batches)
            except StopIteration:
                return
            finally:
                watch.cancel()
            yield batch

    def _give_up(self) -> None:
        self.silent = bool(self.processes)
        self.kill()

    def kill(self) -> None:
        for process in self.processes:
            process.kill()

    def story(self) -> str | None:
        """What has become of the processes, in one line; None where none was killed."""
        reading = self.noted.under_way()
        if self.silent:
            return (
                f"a process that reads images has not answered for {SILENCE:g} s{self._while(*reading.values())}: it was "
                "stopped, or the disk does not answer; try again, or with --workers 0"
            )
        for process in self.processes:
            process.join(1.0)  # until it is known how it ended
            if process.exitcode:
                code = process.exitcode
                how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
                cure = "probably for want of memory: lower --workers"
                if code != -signal.SIGKILL:
                    cure = "try again without that file, or with --workers 0"
                at = [index for number, index in reading.items() if number == process.pid]
                return f"a process that reads images {how}{self._while(*at)}, {cure}"
        return None

    def _while(self, *indices: int) -> str:
        return f" while it read {' or '.join(map(self.file_of, indices))}" if indices else ""


@contextmanager
def told_by(loaders: list[WatchedLoader]) -> Iterator[None]:
    """After a failure no process of these loaders is left, for which Python would wait; where one of them was killed or
    stood still, that is what is raised: ReaderEnded."""
    try:
        yield
    except BaseException as error:
        while True:
            try:
                stories = _stories(error, loaders)
                break
            except RuntimeError as heard:  # torch raises in whatever runs, once it hears that a process has ended
                if not ENDED.search(str(heard)):
                    raise
        for story in stories:
            raise ReaderEnded(story) from error
        raise


def _stories(error: BaseException, loaders: list[WatchedLoader]) -> list[str]:
    """What has become of the processes, if that is behind the error; none of them is left."""
    with _torch_deaf():
        silent = any(loader.silent for loader in loaders)
        broken_off = isinstance(error, ConnectionError | EOFError)  # while it handed over what it had read
        ended = silent or broken_off or (isinstance(error, RuntimeError) and ENDED.search(str(error)))
        stories = [loader.story() for loader in loaders] if ended else []
        for loader in loaders:
            loader.kill()
            for process in loader.processes:
                process.join(1.0)
    return [story for story in stories if story]


@contextmanager
def _torch_deaf() -> Iterator[None]:
    """torch does not hear of processes that end: of those that we end, it would raise in whatever runs then."""
    if threading.current_thread() is not threading.main_thread():  # where no signal is handled
        yield
        return
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)
