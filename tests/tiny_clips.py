"""Clips of a few frames, drawn and encoded here: times, turns, sound and sizes as a test wants them."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from av import AudioStream
    from av.container import OutputContainer

MILLISECOND = Fraction(1, 1000)
CORNERS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (40, 40, 40))
"""Red, green, blue and dark: top left, top right, bottom left, bottom right, before any turn."""
SOUND_RATE = 16_000


def corners(height: int, width: int) -> np.ndarray:
    """uint8 [H, W, 3]: four fields."""
    image = np.zeros((height, width, 3), np.uint8)
    for place, colour in enumerate(CORNERS):
        down, across = divmod(place, 2)
        image[down * height // 2 : (down + 1) * height // 2, across * width // 2 : (across + 1) * width // 2] = colour
    return image


def write_clip(
    path: Path,
    times: Sequence[int] = tuple(range(0, 1000, 100)),
    size: tuple[int, int] = (48, 64),
    rotation: float | None = None,
    sound: str | None = None,
    codec: str = "libx264",
    images: Sequence[np.ndarray] | None = None,
) -> Path:
    """times: milliseconds. size: height, width. rotation: degrees that a player turns it. sound: a codec."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=10)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.time_base = MILLISECOND
        if rotation is not None:
            stream.set_display_rotation(rotation)
        voice = out.add_stream(sound, rate=SOUND_RATE, layout="mono") if sound else None
        for number, time in enumerate(times):
            image = corners(*size) if images is None else images[number]
            frame = av.VideoFrame.from_ndarray(image, "rgb24")
            frame.pts, frame.time_base = time, MILLISECOND
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
        if voice is not None:
            _speak(out, voice, times[-1])
    return path


def write_sound(path: Path) -> Path:
    """A file of sound alone."""
    import av

    with av.open(str(path), "w") as out:
        _speak(out, out.add_stream("aac", rate=SOUND_RATE, layout="mono"), 300)
    return path


def _speak(out: OutputContainer, voice: AudioStream, milliseconds: int) -> None:
    import av

    kind = voice.codec_context.format.name
    for number in range(milliseconds * SOUND_RATE // 1000 // 960 + 1):
        wave = np.sin(np.arange(960) / 9)[None]
        data = wave.astype(np.float32) if kind.startswith("flt") else (wave * 8000).astype(np.int16)
        heard = av.AudioFrame.from_ndarray(data, kind, "mono")
        heard.sample_rate, heard.pts, heard.time_base = SOUND_RATE, number * 960, Fraction(1, SOUND_RATE)
        out.mux(voice.encode(heard))
    out.mux(voice.encode())


def times_of(path: Path) -> list[int]:
    """When each frame is shown, in milliseconds."""
    import av

    with av.open(str(path)) as clip:
        return [round(1000 * frame.pts * frame.time_base) for frame in clip.decode(video=0)]


def pictures_of(path: Path, kind: str = "rgb24") -> list[np.ndarray]:
    import av

    with av.open(str(path)) as clip:
        return [frame.to_ndarray(format=kind) for frame in clip.decode(video=0)]


def sounds_of(path: Path) -> list[tuple[int, bytes]]:
    """The packets of sound: when, in milliseconds from the first, and what."""
    import av

    with av.open(str(path)) as clip:
        packets = [(float(p.pts * p.time_base), bytes(p)) for p in clip.demux(audio=0) if p.pts is not None]
    return [(round(1000 * (time - packets[0][0])), data) for time, data in packets]
