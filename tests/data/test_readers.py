"""Processes that read images: one that is killed, breaks or stands still is told with the file that it was reading."""

from __future__ import annotations

import multiprocessing
import os
import signal

import pytest

from nonlocalseg.data import readers
from nonlocalseg.data.readers import ReaderEnded, WatchedLoader, told_by


class Numbers:
    """The numbers from 0 to 7; at the fifth its process does `what` to itself."""

    def __init__(self, what) -> None:
        self.what = what

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index):
        if index == 5:
            self.what()
        return index


def nothing() -> None:
    pass


def send(number):
    return lambda: os.kill(os.getpid(), number)


def drawn(what, workers: int = 2) -> list[int]:
    loader = WatchedLoader(Numbers(what), "picture {}.png".format, workers, batch_size=None)
    with told_by([loader]):
        return [int(number) for number in loader]


@pytest.mark.parametrize("workers", [0, 2])
def test_all_is_well(workers):
    assert drawn(nothing, workers) == list(range(8))


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (
            send(signal.SIGKILL),
            r"was ended by SIGKILL while it read picture 5\.png, probably for want of memory: lower --workers",
        ),
        (
            send(signal.SIGSEGV),
            r"was ended by SIGSEGV while it read picture 5\.png, try again without that file, or with --workers 0",
        ),
        (lambda: os._exit(3), r"ended with code 3 while it read picture 5\.png, try again"),
        (send(signal.SIGSTOP), r"has not answered for 3 s while it read picture 5\.png: it was stopped, or the disk"),
    ],
    ids=["killed", "crashed", "gone", "stopped"],
)
def test_the_file_is_named(what, said, monkeypatch):
    monkeypatch.setattr(readers, "SILENCE", 3.0 if "3 s" in said else 300.0)
    with pytest.raises(ReaderEnded, match=f"a process that reads images {said}") as error:
        drawn(what)
    assert "\n" not in str(error.value)
    for process in multiprocessing.active_children():
        process.join(5)
        assert not process.is_alive()


@pytest.mark.parametrize(
    "error",
    [ConnectionResetError("reset by peer"), EOFError(), RuntimeError("received 0 items of ancillary data")],
    ids=["reset", "end", "nothing"],
)
@pytest.mark.parametrize("silent", [False, True])
def test_a_process_that_ends_while_it_hands_over_is_told(error, silent, monkeypatch):
    """The connection is lost a moment before torch hears of the end, and raises in whatever runs then."""
    loader = WatchedLoader(Numbers(nothing), "picture {}.png".format, 1, batch_size=None)
    tell, heard = loader.story, iter([True])

    def hear_and_tell() -> str | None:
        if next(heard, False):
            raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed. ")
        return tell()

    def hand_over() -> None:
        numbers = iter(loader)
        next(numbers)
        loader._give_up() if silent else loader.kill()
        raise error

    monkeypatch.setattr(loader, "story", hear_and_tell)
    with pytest.raises(ReaderEnded, match="has not answered" if silent else "was ended by SIGKILL"), told_by([loader]):
        hand_over()


@pytest.mark.parametrize("error", [RuntimeError, ConnectionResetError])
def test_other_failures_stay_what_they_are(error):
    loader = WatchedLoader(Numbers(nothing), str, 1, batch_size=None)

    def fail() -> None:
        numbers = iter(loader)
        next(numbers)
        raise error("broken on purpose")

    with pytest.raises(error, match=r"^broken on purpose$"), told_by([loader]):
        fail()
