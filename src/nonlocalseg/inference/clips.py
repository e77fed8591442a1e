"""Videos as frames: files, addresses and webcams, decoded one frame at a time and turned upright, beside their sound."""

from __future__ import annotations

import glob
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nonlocalseg.extras import needing
from nonlocalseg.images import check_size, images_below
from nonlocalseg.inference.photographs import fixed_part

if TYPE_CHECKING:
    from av import AudioStream, Packet, VideoFrame
    from av.container import InputContainer

SUFFIXES = frozenset(
    {".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".3gp"}
    | {".ogv", ".mjpeg", ".h264", ".h265"}
)
PATIENCE = 15.0
"""Seconds that an address or a webcam may be silent."""
USUAL_RATE = Fraction(25)
"""Frames in a second where a source does not tell."""
STREAMING = ("rtsp", "rtsps", "rtmp", "rtmps", "rtp", "udp", "srt", "tcp")
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Frame:
    """image: uint8 [H, W, 3], RGB, upright. ticks: when it is shown, in units of `unit` seconds since the beginning."""

    image: np.ndarray
    ticks: int
    unit: Fraction

    @property
    def time(self) -> float:
        """Seconds since the video began."""
        return float(self.ticks * self.unit)


class Clip:
    """An open video. name: what it is called. live: it has no end of its own. rate: frames in a second, on average.
    pixel_shape: width over height of a pixel as it is shown. count: frames, where that is known. sounds: the tracks of
    sound. damaged: packets that could not be decoded. ended: why a live source ended, empty where it was left."""

    def __init__(self, name: str, container: InputContainer, live: bool) -> None:
        self.name, self.live, self.damaged, self.ended = name, live, 0, ""
        self._container = container
        picture = container.streams.best("video")
        if picture is None or picture.type != "video":
            raise ValueError(f"{name}: no pictures in it, only {_kinds(container)}; give a video")
        self._picture = container.streams.video[container.streams.video.index(picture)]
        self._size: tuple[int, int] | None = None
        self._last: int | None = None
        self.rate = self._picture.average_rate or self._picture.guessed_rate or USUAL_RATE
        self.pixel_shape = self._picture.sample_aspect_ratio or Fraction(1)
        seconds = None if container.duration is None else Fraction(container.duration, 1_000_000)
        self.count = self._picture.frames or (round(seconds * self.rate) if seconds else None)
        self._beginning = Fraction(max(0, container.start_time or 0), 1_000_000)

    @property
    def sounds(self) -> Sequence[AudioStream]:
        return self._container.streams.audio

    def frames(self, hear: Callable[[Packet[Any]], None] | None = None) -> Iterator[Frame]:
        """The frames in the order in which they are shown, one at a time in memory, each later than the one before.

        hear: gets the packets of sound between them, still encoded, in time with the frames. Raises ValueError where
        the source breaks off, but for a live one, and where no frame can be decoded.
        """
        from av import FFmpegError
        from av.error import InvalidDataError

        sounds = self.sounds if hear else ()
        heard = {sound.index for sound in sounds}
        try:
            for packet in self._container.demux(self._picture, *sounds):
                if hear and packet.stream.index in heard:
                    if packet.dts is not None:
                        hear(self._in_time(packet))
                    continue
                try:
                    decoded = self._picture.decode(packet)
                except InvalidDataError:
                    self.damaged += 1
                    continue
                for picture in decoded:
                    yield self._frame(picture)
        except FFmpegError as error:
            if not self.live or self._last is None:
                raise _explained(error, self.name) from None
            self.ended = error.strerror or type(error).__name__
        if self._last is None:
            raise ValueError(f"{self.name}: no frame of it can be decoded; the file is empty or damaged")

    def _in_time(self, packet: Packet[Any]) -> Packet[Any]:
        shift = self._shift(packet.time_base)
        packet.dts = None if packet.dts is None else packet.dts - shift
        packet.pts = None if packet.pts is None else packet.pts - shift
        return packet

    def _shift(self, unit: Fraction) -> int:
        return round(self._beginning / unit)

    def _frame(self, picture: VideoFrame) -> Frame:
        unit = picture.time_base or self._picture.time_base or 1 / self.rate
        step = max(1, round(1 / (self.rate * unit)))
        following = 0 if self._last is None else self._last + step
        ticks = following if picture.pts is None else picture.pts - self._shift(unit)
        self._last = ticks = ticks if self._last is None else max(ticks, self._last + 1)
        matrix = _display_matrix(picture)
        if self._size is None:
            check_size(picture.width, picture.height)
            self._size = picture.width, picture.height
            self.pixel_shape = 1 / self.pixel_shape if _lies(matrix) else self.pixel_shape
        width, height = self._size  # a stream may change its size; what is written of it cannot
        return Frame(upright(picture.to_ndarray(format="rgb24", width=width, height=height), matrix), ticks, unit)


@contextmanager
def open_clip(source: str | Path | int) -> Iterator[Clip]:
    """A file, an address (http, rtsp and what else FFmpeg opens) or the number of a webcam, closed at the end.

    Raises ValueError in one line, which names the source, where that is no video, and for a missing webcam, and
    FileNotFoundError for a missing file.
    """
    with needing("video", f"{source}: a video"):
        import av

    name, options, live = _without_login(str(source)), {}, False
    if (number := webcam_of(source)) is not None:
        if not sys.platform.startswith("linux"):
            raise ValueError(f"webcam {number}: webcams are read on Linux only; give the address of a stream")
        name, place, kind, live = f"webcam {number}", f"/dev/video{number}", "v4l2", True
        if not Path(place).exists():
            there = ", ".join(path.removeprefix("/dev/video") for path in sorted(glob.glob("/dev/video*")))
            raise ValueError(f"{name}: there is no {place}; {f'there are {there}' if there else 'no webcam is there'}")
    else:
        place, kind = str(source), None
        if not is_address(place) and not Path(place).expanduser().exists():
            raise FileNotFoundError(f"{source}: no such file")
        if place.lower().startswith("rtsp"):
            options = {"rtsp_transport": "tcp"}  # over UDP, FFmpeg's choice, frames get lost without a word
    patience = PATIENCE if live or is_address(place) else None
    av.logging.set_level(None)  # what it raises is enough
    try:
        container = av.open(
            place if is_address(place) else str(Path(place).expanduser()),
            format=kind,
            options=options,
            timeout=patience,
            metadata_errors="replace",
        )
    except (av.FFmpegError, ValueError) as error:
        raise _explained(error, name) from None
    with container:
        endless = is_address(place) and container.duration is None
        yield Clip(name, container, live or endless)


def is_address(source: object) -> bool:
    return isinstance(source, str) and bool(_ADDRESS.match(source))


def webcam_of(source: str | Path | int) -> int | None:
    """The number of a webcam, None for another source: a file may be called 0 as well."""
    text = str(source)
    return int(text) if re.fullmatch(r"\d{1,3}", text) and not Path(text).exists() else None


def upright(image: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    """[H, W, 3] as a display matrix, int [9], shows it: turned by quarters and mirrored; a slant is left out."""
    if matrix is None:
        return image
    across, down = (matrix[3], matrix[1]) if _lies(matrix) else (matrix[0], matrix[4])
    image = image.swapaxes(0, 1) if _lies(matrix) else image
    return np.ascontiguousarray(image[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])


def split_sources(paths: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """Paths of photographs, and videos with what they are called.

    A video is a file or an address whose name says so, an address of a stream, or the number of a webcam; in a folder
    that holds photographs, and among the files of a pattern, only the photographs count. A file is called by its path
    below the folder that was given, below what is common to these where there are several.
    """
    stills: list[str] = []
    names: dict[str, str] = {}
    files: dict[str, str] = {}
    for given in paths:
        path = Path(given).expanduser()
        if _streams(given):
            place = _ADDRESS.sub("", _without_login(given)).partition("?")[0]
            names[given] = re.sub(r"[^\w.-]+", "-", place).strip("-.") or "stream"
        elif webcam_of(given) is not None:
            names[given] = f"webcam-{int(given)}"
        elif path.is_dir() and not images_below(path):
            files |= {str(video): str(path) for video in videos_below(path)}
            stills += [] if videos_below(path) else [given]
        elif path.suffix.lower() in SUFFIXES and path.is_file():
            files[given] = str(path.parent)
        else:
            matches = [] if path.exists() else sorted(glob.glob(str(path), recursive=True))
            found = [match for match in matches if Path(match).suffix.lower() in SUFFIXES]
            files |= {match: str(fixed_part(path)) for match in found} if len(found) == len(matches) else {}
            stills += [] if found and len(found) == len(matches) else [given]
    common = os.path.commonpath([os.path.abspath(base) for base in files.values()]) if files else ""
    return stills, names | {file: Path(os.path.relpath(os.path.abspath(file), common)).as_posix() for file in files}


def videos_below(folder: Path) -> list[Path]:
    """The videos in `folder` and the folders in it, by their names, sorted; hidden ones are left out."""
    inside = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    return sorted(path for path in inside if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def _streams(given: str) -> bool:
    """Whether an address is one of a video: on the web, what has no suffix is the picture of a camera that goes on."""
    scheme, suffix = _ADDRESS.match(given), Path(given.partition("?")[0]).suffix.lower()
    if scheme is None:
        return False
    live = scheme[1].lower() in STREAMING or (scheme[1].lower() in ("http", "https") and not suffix)
    return live or suffix in {*SUFFIXES, ".m3u8"}


def _without_login(address: str) -> str:
    """An address as it may be shown: names and passwords stand before an @."""
    return re.sub(r"(?<=://)[^/@]*@", "", address)


def _lies(matrix: np.ndarray | None) -> bool:
    """Whether rows become columns."""
    return matrix is not None and abs(int(matrix[1])) > abs(int(matrix[0]))


def _display_matrix(picture: VideoFrame) -> np.ndarray | None:
    held = picture.side_data.get("DISPLAYMATRIX")
    return None if held is None else np.frombuffer(held, np.int32)


def _kinds(container: InputContainer) -> str:
    return " and ".join(sorted({stream.type for stream in container.streams})) or "nothing"


def _explained(error: Exception, name: str) -> ValueError:
    reason = getattr(error, "strerror", None) or str(error)
    return ValueError(f"{name}: cannot be read as a video ({reason}); replace it, or convert it with ffmpeg")
