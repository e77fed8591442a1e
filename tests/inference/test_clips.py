"""Reading videos: their times, turns, sound and damage, and which of the given paths are videos."""

from __future__ import annotations

import functools
import http.server
import itertools
import os
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tiny_clips import CORNERS, corners, write_clip, write_sound

from nonlocalseg.images import write_image
from nonlocalseg.inference.clips import open_clip, split_sources, upright, webcam_of

pytest.importorskip("av")


def colours(image: np.ndarray) -> list[int]:
    """Which of `CORNERS` stands in each corner."""
    height, width = image.shape[:2]
    fields = [image[y, x].astype(int) for y in (height // 4, -height // 4) for x in (width // 4, -width // 4)]
    return [int(np.abs(np.array(CORNERS) - field).sum(1).argmin()) for field in fields]


@pytest.mark.parametrize("turn", [None, 90, 180, 270])
def test_frames_stand_upright(tmp_path: Path, turn: int | None) -> None:
    with open_clip(write_clip(tmp_path / "a.mp4", (0, 100), rotation=turn)) as clip:
        image = next(clip.frames()).image
    expected = np.rot90(corners(48, 64), (turn or 0) // 90)
    assert image.shape == expected.shape
    assert colours(image) == colours(expected)
    assert np.abs(image.astype(int) - expected)[4:20, 4:20].max() < 12


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("mirrored", [False, True])
def test_every_display_matrix(turns: int, mirrored: bool) -> None:
    """A matrix maps (x, y) of the stored picture to (a x + c y, b x + d y) of the shown one, up to a shift."""
    angle = -np.pi / 2 * turns  # y points down: a turn to the left
    turn = np.round([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    (a, c), (b, d) = (turn @ np.diag([-1 if mirrored else 1, 1])).astype(int)
    matrix = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 14], np.int32) * (1 << 16)
    image = corners(10, 20)
    expected = np.rot90(image[:, ::-1] if mirrored else image, turns)
    assert np.array_equal(upright(image, matrix), expected)


def test_times_rates_and_sizes(tmp_path: Path) -> None:
    times = (0, 40, 80, 400, 420, 1000)
    with open_clip(write_clip(tmp_path / "a.mkv", times, codec="libvpx-vp9", size=(35, 51))) as clip:
        frames = list(clip.frames())
        assert (clip.name, clip.live) == (str(tmp_path / "a.mkv"), False)
    assert [round(1000 * frame.time) for frame in frames] == list(times)
    assert {frame.image.shape for frame in frames} == {(35, 51, 3)}
    with open_clip(write_clip(tmp_path / "b.ts")) as clip:  # such files begin at 1.4 seconds
        assert clip.count is not None
        frames = list(clip.frames())
    assert frames[0].ticks == 0
    assert frames[-1].time == pytest.approx(0.9, abs=0.01)


def test_frames_without_times_follow_each_other(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.h264")
    with open_clip(tmp_path / "a.h264") as clip:
        times = [frame.time for frame in clip.frames()]
    assert len(times) == 10
    assert all(later > earlier for earlier, later in itertools.pairwise(times))


def test_what_is_no_video_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(source: str | Path) -> str:
        with pytest.raises((ValueError, FileNotFoundError)) as caught, open_clip(source) as clip:
            list(clip.frames())
        assert "\n" not in str(caught.value)
        return str(caught.value)

    (tmp_path / "text.mp4").write_text("nothing")
    assert refused(tmp_path / "text.mp4").startswith(f"{tmp_path}/text.mp4: cannot be read as a video (Invalid data")
    (tmp_path / "empty.mp4").touch()
    assert "empty.mp4: cannot be read as a video" in refused(tmp_path / "empty.mp4")
    assert refused(tmp_path / "none.mp4") == f"{tmp_path}/none.mp4: no such file"
    whole = write_clip(tmp_path / "whole.mp4", sound="aac").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    assert "cut.mp4: cannot be read as a video" in refused(tmp_path / "cut.mp4")
    assert "no pictures in it, only audio; give a video" in refused(write_sound(tmp_path / "sound.mka"))
    assert refused("http://127.0.0.1:9/a.mp4").startswith("http://127.0.0.1:9/a.mp4: cannot be read as a video")
    if sys.platform.startswith("linux"):
        assert refused("963").startswith("webcam 963: there is no /dev/video963; ")
    monkeypatch.setitem(sys.modules, "av", None)
    assert refused(tmp_path / "whole.mp4").endswith("needs the extra video: pip install 'nonlocalseg[video]'")


def test_a_damaged_part_is_left_out(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    images = list(generator.integers(0, 255, (12, 48, 64, 3), dtype=np.uint8))
    path = write_clip(tmp_path / "a.mkv", tuple(range(0, 1200, 100)), codec="ffv1", images=images)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    path.write_bytes(data)
    with open_clip(path) as clip:
        found = list(clip.frames())
    assert 8 <= len(found) <= 12
    data = data[: len(data) // 2]  # a .mkv that a camera had no time to finish
    path.write_bytes(data)
    with open_clip(path) as clip:
        assert 3 <= len(list(clip.frames())) <= 7


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and its address on the loopback."""

    class Ranges(http.server.SimpleHTTPRequestHandler):
        """Serves from any byte on, which a .mp4 needs, whose table stands at its end."""

        def log_message(self, *_anything: object) -> None: ...

        def do_GET(self) -> None:
            path, wanted = Path(self.translate_path(self.path)), re.match(r"bytes=(\d+)-", self.headers["Range"] or "")
            if not path.is_file() or not wanted:
                return super().do_GET()
            data, first = path.read_bytes(), int(wanted[1])
            self.send_response(206 if first < len(data) else 416)
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
            self.send_header("Content-Length", str(len(data[first:])))
            self.end_headers()
            self.wfile.write(data[first:])
            return None

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Ranges, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield tmp_path, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_an_address(served: tuple[Path, str]) -> None:
    folder, address = served
    write_clip(folder / "a.mp4", (0, 40, 300), sound="aac")
    heard: list[object] = []
    with open_clip(f"{address}/a.mp4") as clip:
        assert not clip.live
        assert [round(1000 * frame.time) for frame in clip.frames(heard.append)] == [0, 40, 300]
    assert heard
    with (
        pytest.raises(ValueError, match=r"/none\.mp4: cannot be read as a video .*404"),
        open_clip(f"{address}/none.mp4"),
    ):
        pass


def test_which_paths_are_videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mixed/a.mp4", "films/a.MOV", "films/deep/b.mkv", "films/.hidden/c.mp4", "7"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    write_image(tmp_path / "mixed/b.png", np.zeros((4, 4, 3), np.uint8))
    assert split_sources(["mixed", "mixed/b.png", "7", "no.mp4"]) == (["mixed", "mixed/b.png", "7", "no.mp4"], {})
    assert split_sources(["mixed/a.mp4", "mixed"]) == (["mixed"], {"mixed/a.mp4": "a.mp4"})
    assert split_sources(["films"]) == ([], {"films/a.MOV": "a.MOV", "films/deep/b.mkv": "deep/b.mkv"})
    assert split_sources(["*/a.*"])[1] == {"films/a.MOV": "films/a.MOV", "mixed/a.mp4": "mixed/a.mp4"}
    assert split_sources(["mixed/*"]) == (["mixed/*"], {})
    stream = "rtsp://user:word@camera.local:554/live?x=1"
    assert split_sources(["0", stream, "http://host/trip/a.mp4"])[1] == {
        "0": "webcam-0",
        stream: "camera.local-554-live",
        "http://host/trip/a.mp4": "host-trip-a.mp4",
    }
    pictures = ["s3://trip/", "https://host/a.jpg", "https://host/list.csv", "memory://a.png"]
    assert split_sources([*pictures, "http://camera/video", "https://host/live.m3u8?key=1"]) == (
        pictures,
        {"http://camera/video": "camera-video", "https://host/live.m3u8?key=1": "host-live.m3u8"},
    )
    assert (webcam_of("12"), webcam_of("7"), webcam_of("a"), webcam_of(0)) == (12, None, None, 0)
    os.remove("7")
    assert webcam_of("7") == 7
