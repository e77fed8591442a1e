"""Places in line, stopping, and what is kept of the answers."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from nonlocalseg.serving import shelf as shelves
from nonlocalseg.serving.answer import Answer
from nonlocalseg.serving.limits import Limits, Refused, checked_name
from nonlocalseg.serving.line import Job, Line, Stopped
from nonlocalseg.serving.shelf import Result, Shelf


def test_a_full_line_is_busy_until_a_job_ends() -> None:
    line, go = Line(2), threading.Event()
    first, second = line.enter(), line.enter()
    with pytest.raises(Refused, match="busy: 2 requests") as refused:
        line.enter()
    assert (refused.value.status, refused.value.wait) == (503, 5)
    first.start(lambda job: go.wait(10))
    second.start(lambda job: 1 / 0)
    go.set()
    assert first.future is not None
    assert second.future is not None
    assert first.future.result(10) is True
    with pytest.raises(ZeroDivisionError, match="division"):
        second.future.result(10)
    _until(lambda: line.taken == 0)
    assert (first.state, second.state) == ("done", "failed")
    third = line.enter()
    third.leave()
    assert line.taken == 0


def test_jobs_are_stopped_while_they_wait_and_between_passes() -> None:
    line, begun, go = Line(3), threading.Event(), threading.Event()

    def work(job: Job[int]) -> int:
        job.before_pass()
        begun.set()
        go.wait(10)
        job.before_pass()
        return 1

    running, waiting, last = line.enter(), line.enter(), line.enter()
    running.start(work)
    waiting.start(work)
    assert begun.wait(10)
    assert (running.state, waiting.state, running.done) == ("running", "waiting", 1)
    waiting.stop()
    running.stop()
    go.set()
    assert running.future is not None
    with pytest.raises(Stopped):
        running.future.result(10)
    assert (running.state, waiting.state) == ("cancelled", "cancelled")
    last.stop()
    assert last.start(work).exception(10) is not None  # before its first pass
    _until(lambda: line.taken == 0)


def test_closing_stops_everything() -> None:
    line, go = Line(2), threading.Event()
    running, waiting = line.enter(), line.enter()

    def work(job: Job[None]) -> None:
        go.wait(10)
        job.before_pass()

    running.start(work)
    waiting.start(work)
    line.close()
    go.set()
    assert running.future is not None
    with pytest.raises(Stopped):
        running.future.result(10)
    assert waiting.state == "cancelled"


def _result(side: int) -> Result:
    mask = np.zeros((side, side), np.uint8)
    return Result("photo.jpg", np.zeros((side, side, 3), np.uint8), [Answer(None, mask, mask)])


def test_the_shelf_keeps_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    line, now = Line(10), [0.0]
    monkeypatch.setattr(shelves.time, "monotonic", lambda: now[0])
    shelf = Shelf(2.5 * _result(20).size)

    def put(side: int) -> str:
        job = line.enter()
        job.start(lambda job: _result(side)).result(10)
        return shelf.put(job)

    tokens = [put(20) for _ in range(2)]
    assert shelf.result(tokens[0]).size == 5 * 400
    third = put(20)
    with pytest.raises(Refused, match="no longer kept"):
        shelf.result(tokens[1])  # the first has been used since
    shelf.result(tokens[0])
    large = put(100)
    assert shelf.result(large).size == 50_000  # alone more than the shelf may hold
    with pytest.raises(Refused, match="no longer kept"):
        shelf.result(third)
    now[0] = shelves.AGE + 1
    with pytest.raises(Refused, match="no longer kept"):
        shelf.result(large)


def test_what_waits_is_not_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelves, "MOST", 1)
    shelf, line = Shelf(1), Line(5)
    tokens = [shelf.put(line.enter()) for _ in range(3)]
    assert [shelf.job(token).state for token in tokens] == ["waiting"] * 3
    with pytest.raises(Refused, match="no answer yet") as refused:
        shelf.result(tokens[0])
    assert refused.value.status == 409


def test_limits() -> None:
    limits = Limits(max_megabytes=0.5, max_megapixels=2)
    assert (limits.most_bytes, limits.most_pixels) == (500_000, 2_000_000)
    with pytest.raises(ValueError, match=r"max_megapixels: .* 134 or less"):
        Limits(max_megapixels=500)
    with pytest.raises(ValueError, match="queue: 0; give 1 or more"):
        Limits(queue=0)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("photo.jpg", "photo.jpg"),
        ("/etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("", "photograph"),
        (None, "photograph"),
        ("..", "photograph"),
        ("a\nb\x00c.png", "abc.png"),
        ("x" * 300 + ".png", "x" * 76 + ".png"),
        ("Straße 1.png", "Straße 1.png"),
    ],
)
def test_names_of_files(given: str | None, name: str) -> None:
    assert checked_name(given) == name


def _until(true) -> None:
    for _ in range(1000):
        if true():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it never came true")
