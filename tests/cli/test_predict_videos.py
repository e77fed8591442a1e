"""`predict` with videos: where they go, what is said, what is refused, and how they are interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_clips import pictures_of, sounds_of, times_of, write_clip
from tiny_runs import files_in

from nonlocalseg import images
from nonlocalseg.cli import main
from nonlocalseg.inference import clips, stopping

pytest.importorskip("av")
TIMES = (0, 100, 150, 400)


def run(trained: tuple[Path, Path], *words: object) -> int:
    return main(["predict", str(trained[1]), *map(str, words)])


def test_a_clip_into_a_file(capsys, trained, tmp_path):
    clip, out = write_clip(tmp_path / "clip.mp4", TIMES, sound="aac"), tmp_path / "new" / "clip_overlay.mp4"
    assert run(trained, clip, "--out", out, "--every", "2", "--smooth", "0.5") == 0
    shown = capsys.readouterr()
    assert shown.out == f"4 frames labelled, 2 of them seen by the model, in {out}\n"
    assert shown.err == ""
    assert list(out.parent.iterdir()) == [out]
    assert times_of(out) == list(TIMES)
    assert [data for _, data in sounds_of(out)] == [data for _, data in sounds_of(clip)]


def test_several_and_photographs_into_a_folder(capsys, trained, tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    write_clip(source / "a.mp4", TIMES)
    write_clip(source / "deep/a.mp4", TIMES[:2])
    photo = trained[0] / "images/val/0.png"
    (source / "broken.mp4").write_text("nothing")
    assert run(trained, source, photo, "--out", out, "--video", "index") == 1
    shown = capsys.readouterr()
    assert shown.err.startswith(f"error: {source}/broken.mp4: cannot be read as a video")
    assert len(shown.err.splitlines()) == 1
    assert f"2 frames labelled, in {out}/index/deep/a.mp4.mkv" in shown.out
    assert "1 of 1 images labelled" in shown.out
    pictures = {f"{kind}/0.png.png" for kind in ("index", "colour", "overlay")}
    tables = {"areas.csv", "manifest.csv"}
    assert set(files_in(out)) == {"index/a.mp4.mkv", "index/deep/a.mp4.mkv", *pictures, *tables}
    assert np.max(pictures_of(out / "index/a.mp4.mkv", "gray")) <= 1


def test_videos_beside_photographs_in_a_folder_are_left_out(capsys, trained, tmp_path):
    """As the short films are that telephones keep beside their photographs."""
    write_clip(tmp_path / "in/a.mp4")
    images.write_image(tmp_path / "in/a.png", np.zeros((32, 32, 3), np.uint8))
    assert run(trained, tmp_path / "in", "--out", tmp_path / "out") == 0
    assert capsys.readouterr().err == f"left out, no images by their names: {tmp_path}/in/a.mp4\n"


def test_mistakes(mistake, trained, tmp_path):
    clip, photo = write_clip(tmp_path / "clip.mp4", TIMES), trained[0] / "images/val/0.png"
    start = ("predict", trained[1])
    assert "b.avi: a video of kind overlay is written as .mp4, .mov" in mistake(
        *start, clip, "--out", tmp_path / "b.avi"
    )
    assert "is a file, for one video; give a folder" in mistake(*start, clip, photo, "--out", tmp_path / "b.mp4")
    assert "is a file, for one video" in mistake(*start, photo, "--out", tmp_path / "b.mp4")
    assert "is the video itself; choose another name" in mistake(*start, clip, "--out", clip)
    assert "--every is for videos, and there is none among PATHS" in mistake(*start, photo, "--every", "2")
    assert "--legend is for photographs, and there is none" in mistake(*start, clip, "--legend")
    assert "--smooth: 1" in mistake(*start, clip, "--smooth", "1")
    assert "--every: 0; give 1 or more" in mistake(*start, clip, "--every", "0")
    assert "webcam 963: " in mistake(*start, "963", "--out", tmp_path / "b.mp4")
    assert "no such file" in mistake(*start, tmp_path / "none.mp4")
    assert "127.0.0.1:9/a.mp4: cannot be read as a video" in mistake(
        *start, "http://me:secret@127.0.0.1:9/a.mp4", "--out", tmp_path / "b.mp4"
    )
    (tmp_path / "text.mkv").write_text("nothing")
    assert "text.mkv: cannot be read as a video" in mistake(*start, tmp_path / "text.mkv", "--out", tmp_path / "b.mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "text.mkv"]


def test_a_live_source_is_told_and_whole_when_stopped(capsys, trained, tmp_path, monkeypatch):
    plain = clips.Clip.__init__
    monkeypatch.setattr(clips.Clip, "__init__", lambda self, name, container, live: plain(self, name, container, True))
    monkeypatch.setattr(stopping.Stopping, "asked", lambda self: True)
    clip = write_clip(tmp_path / "clip.mp4", TIMES)
    assert run(trained, clip, "--out", tmp_path / "b.mp4") == 0
    shown = capsys.readouterr()
    assert shown.err == f"{clip}: live; Ctrl-C ends it, and the file is whole then\n"
    assert shown.out == f"1 frame labelled, in {tmp_path}/b.mp4\n"


def test_a_killed_call_leaves_nothing(trained, tmp_path):
    """Stopped when its first frames are written; Ctrl-C goes the same way."""
    clip = write_clip(tmp_path / "clip.mp4", tuple(range(0, 40_000, 40)))
    words = [
        sys.executable,
        "-m",
        "nonlocalseg",
        "predict",
        str(trained[1]),
        str(clip),
        "--out",
        str(tmp_path / "b/c.mp4"),
    ]
    child = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    while child.poll() is None and not list(tmp_path.glob("b/.c.*")):
        time.sleep(0.05)
    child.send_signal(signal.SIGTERM)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130, said
    assert said.startswith("interrupted: ")
    assert list((tmp_path / "b").iterdir()) == []
