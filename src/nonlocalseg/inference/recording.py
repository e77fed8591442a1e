"""Writing a video: frames as they come, each at its own time, and the sound of another video as it is."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nonlocalseg.inference.clips import Clip, Frame

if TYPE_CHECKING:
    from av import AudioStream, Packet, VideoFrame, VideoStream

BT709 = 1
"""FFmpeg's number of ITU-R BT.709, as primaries, transfer and matrix."""
LIMITED_RANGE = 1


@dataclass(frozen=True)
class Coding:
    """How frames are encoded. even: sides must be."""

    codec: str
    pixels: str
    options: Mapping[str, str]
    even: bool = False


H264 = Coding("libx264", "yuv420p", {"preset": "veryfast", "crf": "18", "rc-lookahead": "10"}, even=True)
VP9 = Coding("libvpx-vp9", "yuv420p", {"deadline": "realtime", "cpu-used": "6", "crf": "24", "b": "0", "row-mt": "1"})
FFV1 = Coding("ffv1", "gray", {"level": "3"})
CODINGS: Mapping[str, Mapping[str, Coding]] = {
    "overlay": {".mp4": H264, ".mov": H264, ".mkv": H264, ".webm": VP9},
    "colour": {".mp4": H264, ".mov": H264, ".mkv": H264, ".webm": VP9},
    "index": {".mkv": FFV1},
}
"""What of a video is shown -> suffix of the file -> its encoding."""


def coding_of(path: Path, kind: str) -> Coding:
    """ValueError where a file of this name cannot be written."""
    suffix, known = path.suffix.lower(), CODINGS[kind]
    if suffix not in known:
        raise ValueError(
            f"--out: {path}: a video of kind {kind} is written as {', '.join(known)}; choose another suffix"
        )
    return known[suffix]


def suffix_for(clip: Clip, kind: str) -> str:
    """That of a file which holds the video and its sound: .mp4 where that can."""
    import av

    if ".mp4" not in CODINGS[kind]:
        return ".mkv"
    with av.open(io.BytesIO(), "w", format="mp4") as trial:
        return ".mp4" if all(_codec_of(sound) in trial.supported_codecs for sound in clip.sounds) else ".mkv"


class Recording:
    """A file that frames are added to; `clip` says how fast they are shown, and whose sound is copied.

    path: where it is written, with the suffix of `named`, which messages name. To be closed; whole only if that was
    without an error. Raises ValueError for a sound that such a file cannot hold, and OSError where it cannot be written.
    """

    def __init__(self, path: Path, named: Path, clip: Clip, kind: str) -> None:
        import av

        self._path, self._clip, self._coding = named, clip, coding_of(named, kind)
        self._container = av.open(str(path), "w")
        self._picture: VideoStream | None = None
        self._early: list[Packet[Any]] = []
        for sound in clip.sounds:
            if _codec_of(sound) not in self._container.supported_codecs:
                self._container.close()
                raise ValueError(
                    f"{clip.name}: a file {named.suffix} cannot hold its sound ({_codec_of(sound)}); "
                    f"choose --out {named.stem}.mkv"
                )
        self._sounds = {sound.index: self._container.add_stream_from_template(sound) for sound in clip.sounds}

    def add(self, frame: Frame, picture: np.ndarray) -> None:
        """picture: uint8 [H, W, 3], or class numbers [H, W], shown when the frame is. Raises OSError."""
        with _written(self._path):
            if self._picture is None:
                self._picture = self._begun(frame, picture)
                for packet in self._early:
                    self._mux(packet)
                self._early.clear()
            encoded = self._encodable(picture)
            encoded.pts, encoded.time_base = frame.ticks, frame.unit
            self._container.mux(self._picture.encode(encoded))

    def hear(self, packet: Packet[Any]) -> None:
        """A packet of sound, as `Clip.frames` gives it."""
        with _written(self._path):
            if self._picture is None:  # a file's header is written once, when the size of the frames is known
                self._early.append(packet)
            else:
                self._mux(packet)

    def close(self, whole: bool) -> None:
        """whole: with the frames that the encoder still holds."""
        with _written(self._path):
            if whole and self._picture is not None:
                self._container.mux(self._picture.encode())
            self._container.close()

    def _begun(self, frame: Frame, picture: np.ndarray) -> VideoStream:
        from av import VideoStream

        coding = self._coding
        stream = self._container.add_stream(coding.codec, rate=self._clip.rate, options=dict(coding.options))
        assert isinstance(stream, VideoStream)
        height, width = self._padded(picture).shape[:2]
        stream.width, stream.height, stream.pix_fmt = width, height, coding.pixels
        context = stream.codec_context
        context.time_base = frame.unit
        context.sample_aspect_ratio = self._clip.pixel_shape
        if coding.pixels != "gray":
            context.colorspace = context.color_primaries = context.color_trc = BT709
            context.color_range = LIMITED_RANGE
        return stream

    def _encodable(self, picture: np.ndarray) -> VideoFrame:
        from av import VideoFrame

        if self._coding.pixels == "gray":
            if int(picture.max()) > np.iinfo(np.uint8).max:
                raise ValueError(f"--video: index holds class numbers up to 255, not {picture.max()}; choose colour")
            return VideoFrame.from_ndarray(picture.astype(np.uint8), "gray")
        shown = VideoFrame.from_ndarray(self._padded(picture), "rgb24")
        return shown.reformat(format=self._coding.pixels, dst_colorspace="ITU709", dst_color_range="MPEG")

    def _padded(self, picture: np.ndarray) -> np.ndarray:
        """The last row and column once more where sides must be even."""
        more = [(0, side % 2 if self._coding.even else 0) for side in picture.shape[:2]]
        return np.pad(picture, [*more, (0, 0)][: picture.ndim], mode="edge") if any(map(any, more)) else picture

    def _mux(self, packet: Packet[Any]) -> None:
        packet.stream = self._sounds[packet.stream.index]
        self._container.mux(packet)


def _codec_of(sound: AudioStream) -> str:
    return sound.codec_context.codec.canonical_name


@contextmanager
def _written(path: Path) -> Iterator[None]:
    """FFmpeg's errors as OSError that names the file."""
    import av

    try:
        yield
    except av.FFmpegError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
