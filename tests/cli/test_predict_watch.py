"""`predict --watch`: what appears is labelled when it is whole, once, also by a second call; and how it ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from tiny_clips import write_clip
from tiny_runs import files_in

from nonlocalseg import images
from nonlocalseg.cli import main
from nonlocalseg.inference import arrivals
from nonlocalseg.inference.arrivals import Arrivals
from nonlocalseg.inference.stopping import Stopping

PICTURE = np.random.default_rng(0).integers(0, 255, (32, 48, 3), dtype=np.uint8)


@pytest.fixture
def watch(trained, tmp_path, monkeypatch) -> Callable[..., int]:
    """`watch(*steps)` watches tmp_path/in; before each look the next step is done, and the last ends it."""

    def run(*steps: Callable[[], object], more: tuple[str, ...] = ()) -> int:
        left = iter(steps)

        def next_step(self: Stopping, seconds: float) -> bool:
            step = next(left, None)
            if step is None:
                return True
            step()
            return self.asked()

        monkeypatch.setattr(Stopping, "wait", next_step)
        return main(
            ["predict", str(trained[1]), str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--watch", *more]
        )

    (tmp_path / "in").mkdir()
    return run


def nothing() -> None: ...


def test_what_appears_is_labelled_once(capsys, tmp_path, watch):
    source, out = tmp_path / "in", tmp_path / "out"
    images.write_image(source / "first.png", PICTURE)

    def more() -> None:
        images.write_image(source / "deep/second.jpg", PICTURE)
        write_clip(source / "clip.mp4", (0, 100))
        (source / "notes.txt").write_text("nothing")

    assert watch(nothing, nothing, more, nothing, nothing) == 0
    shown = capsys.readouterr()
    assert shown.err == f"watching {source}; Ctrl-C ends it\n"
    lines = shown.out.splitlines()
    assert lines[0] == "first.png: labelled"
    assert {"deep/second.jpg: labelled", "clip.mp4: labelled"} < set(lines)
    assert lines[-1] == f"3 labelled, 0 were done earlier; in {out}"
    written = files_in(out)
    pictures = {
        f"{kind}/{name}.png" for kind in ("index", "colour", "overlay") for name in ("first.png", "deep/second.jpg")
    }
    assert set(written) == {*pictures, "overlay/clip.mp4.mp4", "manifest.csv", "areas.csv"}

    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert watch(nothing, nothing, nothing) == 0
    assert capsys.readouterr().out == f"0 labelled, 3 were done earlier; in {out}\n"
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == stamps

    def replaced() -> None:
        images.write_image(source / "first.png", PICTURE[::-1].copy())

    assert watch(nothing, nothing, replaced, nothing, nothing) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"1 labelled, 3 were done earlier; in {out}"


def test_a_file_is_labelled_when_it_is_whole(capsys, tmp_path, watch, monkeypatch):
    """It grows, then rests while its last part is missing, then is whole."""
    images.write_image(tmp_path / "whole.png", PICTURE)
    data, path = (tmp_path / "whole.png").read_bytes(), tmp_path / "in/a.png"

    def grow(size: int) -> Callable[[], object]:
        return lambda: path.write_bytes(data[:size])

    assert watch(grow(100), grow(300), grow(len(data) - 50), nothing, nothing, grow(len(data)), nothing, nothing) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == ["a.png: labelled", f"1 labelled, 0 were done earlier; in {tmp_path}/out"]
    assert "error" not in shown.err

    path.unlink()
    monkeypatch.setattr(arrivals, "PATIENCE", -1.0)
    assert watch(grow(300), nothing, nothing, nothing) == 1
    shown = capsys.readouterr()
    assert shown.out == f"0 labelled, 1 failed, 0 were done earlier; in {tmp_path}/out\n"
    assert len(shown.err.splitlines()) == 2
    assert "a.png: " in shown.err.splitlines()[1]


def test_what_is_written_is_not_labelled(tmp_path, watch, capsys):
    """Where --out is the folder itself, and where pictures were moved."""
    images.write_image(tmp_path / "in/a.png", PICTURE)
    more = ("--out", str(tmp_path / "in"))
    moved = lambda: shutil.copy(tmp_path / "in/overlay/a.png.png", tmp_path / "in/b.png")  # noqa: E731  # a step
    assert watch(nothing, nothing, nothing, moved, nothing, nothing, more=more) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("1 labelled, 0 were done earlier")


def test_files_that_go_are_forgotten(tmp_path):
    (tmp_path / "a.png").write_bytes(b"1")
    (tmp_path / ".hidden.png").write_bytes(b"1")
    seen = Arrivals([tmp_path], tmp_path / "out")
    assert seen.look() == []
    assert [item.name for item in seen.look()] == ["a.png"]
    assert seen.look() == []
    (tmp_path / "a.png").unlink()
    assert seen.look() == []
    (tmp_path / "a.png").write_bytes(b"1")
    assert [len(seen.look()) for _ in range(3)] == [0, 1, 0]


def test_mistakes(mistake, trained, tmp_path):
    start = ("predict", trained[1])
    assert "--watch: " in mistake(*start, trained[0] / "images/val/0.png", "--out", tmp_path / "out", "--watch")
    assert "no folder; give the folders that fill up" in mistake(*start, tmp_path / "none", "--watch")
    assert "--again: not with --watch" in mistake(*start, tmp_path, "--watch", "--again")
    assert "--format: not with --watch" in mistake(*start, tmp_path, "--watch", "--format", "coco")
    assert "is a file" in mistake(*start, tmp_path, "--watch", "--out", tmp_path / "a.mp4")


def test_the_first_signal_ends_in_order_and_a_second_ctrl_c_at_once():
    with Stopping() as stopping:
        assert not stopping.wait(0.01)
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        assert stopping.wait(30)
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            time.sleep(30)


def test_a_call_that_is_killed_tells_what_it_did(trained, tmp_path):
    source = tmp_path / "in"
    images.write_image(source / "a.png", PICTURE)
    words = [sys.executable, "-m", "nonlocalseg", "predict", str(trained[1]), str(source), "--watch"]
    child = subprocess.Popen([*words, "--out", str(tmp_path / "out")], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "a.png: labelled\n"
    child.send_signal(signal.SIGTERM)
    said, _ = child.communicate(timeout=60)
    assert said == f"1 labelled, 0 were done earlier; in {tmp_path}/out\n"
    assert child.returncode == 0
