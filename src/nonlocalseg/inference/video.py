"""Videos: `predict_video()`, the classes of each frame, and `label_video()`, a video of them; one frame at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nonlocalseg.files import writing
from nonlocalseg.inference.best import best_class
from nonlocalseg.inference.borrowed import evaluated, settled_view
from nonlocalseg.inference.clips import Clip, Frame, open_clip
from nonlocalseg.inference.engine import Model
from nonlocalseg.inference.footage import Footage
from nonlocalseg.inference.predictor import Prediction, device_of, predict
from nonlocalseg.inference.recording import Recording, coding_of
from nonlocalseg.labels import default_palette
from nonlocalseg.progress import track
from nonlocalseg.runtime import pick_device
from nonlocalseg.values import changed, names_of
from nonlocalseg.view import View
from nonlocalseg.zoo.pretrained import from_pretrained

Source = str | Path | int
"""A file, an address (http, rtsp), or the number of a webcam."""


@dataclass(eq=False, repr=False)
class FramePrediction(Prediction):
    """What a model says of a frame of a video: of its picture, upright.

    time: seconds since the video began. held: the answer is that for an earlier frame (`Footage.every`).
    """

    time: float = 0.0
    held: bool = False


@dataclass(frozen=True)
class Labelled:
    """What became of a video. frames: how many were written. seen: how many of them the model saw. damaged: packets
    that could not be decoded and are left out. ended: why a live source ended by itself, empty otherwise."""

    out: Path
    frames: int
    seen: int
    damaged: int
    ended: str


def predict_video(
    model: Model | str | Path,
    source: Source,
    view: View | None = None,
    footage: Footage | None = None,
    *,
    setting: str | None = None,
    device: torch.device | str | None = None,
    accumulate_on: torch.device | str | None = None,
    **changes: object,
) -> Iterator[FramePrediction]:
    """The classes of a video, frame by frame: nothing of earlier frames stays in memory but what `footage` needs.

    Arguments and errors are those of `predict`; those of the source are raised when the first frame is asked for.

    Args:
        source: a file, an address (http, rtsp), or the number of a webcam. What is live ends when it is left.
        footage: which frames are labelled, and whether probabilities are averaged over time: with `smooth` s, those of
            a frame are s times those of the labelled frame before it plus (1 - s) times its own.
        changes: fields of the view or of the footage, put over them.
    """
    follower = _follower(model, view, footage, setting, device, accumulate_on, changes)
    with open_clip(source) as clip:
        for frame in clip.frames():
            yield follower.look(frame, clip.name)


def label_video(
    model: Model | str | Path,
    source: Source,
    out: str | Path | Callable[[Clip], Path],
    view: View | None = None,
    footage: Footage | None = None,
    *,
    setting: str | None = None,
    device: torch.device | str | None = None,
    accumulate_on: torch.device | str | None = None,
    stopped: Callable[[], bool] = lambda: False,
    quiet: bool = True,
    **changes: object,
) -> Labelled:
    """Write a video of the classes of another, with its frames' times, upright as it is shown, and with its sound.

    Arguments and errors are those of `predict_video`. The file appears when it is whole, or not at all.

    Args:
        out: the file, whose suffix chooses the format (`recording.CODINGS`), or what makes its name of the open video.
        stopped: asked after each frame: a live source then ends there, any other raises KeyboardInterrupt.
        quiet: do not tell on standard error how far it is.

    Raises ValueError for a suffix, or a sound that the file cannot hold, and OSError where it cannot be written.
    """
    follower = _follower(model, view, footage, setting, device, accumulate_on, changes)
    kind = follower.footage.video
    if not callable(out):
        coding_of(Path(out), kind)
    with open_clip(source) as clip:
        path = out(clip) if callable(out) else Path(out)
        with writing(path) as temporary:
            recording, whole, frames = Recording(temporary, path, clip, kind), False, 0
            try:
                moving = clip.frames(recording.hear)
                for frame in track(moving, f"labelling {clip.name}", clip.count, quiet=quiet):
                    recording.add(frame, _shown(follower.look(frame, clip.name), kind))
                    frames += 1
                    if stopped():
                        if clip.live:
                            break
                        raise KeyboardInterrupt
                whole = True
            finally:
                recording.close(whole)
        return Labelled(path, frames, follower.seen, clip.damaged, clip.ended)


class Follower:
    """A model that looks at the frames of one video in turn; it keeps the last answer, and, where the footage is
    smoothed, its probabilities."""

    def __init__(
        self,
        model: Model,
        view: View,
        footage: Footage,
        device: torch.device,
        accumulate_on: torch.device | str | None,
    ) -> None:
        self.footage, self.seen = footage, 0
        self._model, self._view, self._device, self._kept_on = evaluated(model), view, device, accumulate_on
        self._count = 0
        self._last: FramePrediction | None = None
        self._past: Tensor | None = None

    def look(self, frame: Frame, name: str) -> FramePrediction:
        """The answer for the next frame of the video called `name`."""
        held = self._last is not None and self._count % self.footage.every > 0
        self._count += 1
        if held:
            assert self._last is not None
            return replace(self._last, image=frame.image, time=frame.time, held=True)
        self.seen += 1
        found = predict(self._model, frame.image, self._view, device=self._device, accumulate_on=self._kept_on)
        mask, probabilities = found.mask, lambda: found.probabilities
        if self.footage.smooth:
            past = self._past = self._smoothed(found.probabilities)
            mask, probabilities = best_class(past), lambda: past
        self._last = FramePrediction(
            mask, found.classes, found.palette, frame.image, name, probabilities, time=frame.time
        )
        return self._last

    def _smoothed(self, own: Tensor) -> Tensor:
        """The mean over time, float32 [K, H, W], in the memory of `own`."""
        return own if self._past is None else own.lerp_(self._past, self.footage.smooth)


def _follower(
    model: Model | str | Path,
    view: View | None,
    footage: Footage | None,
    setting: str | None,
    device: torch.device | str | None,
    accumulate_on: torch.device | str | None,
    changes: Mapping[str, object],
) -> Follower:
    of_footage = {name: item for name, item in changes.items() if name in names_of(Footage)}
    of_view = {name: item for name, item in changes.items() if name not in of_footage}
    settled = changed(footage or Footage(), of_footage)
    if isinstance(model, (str, Path)):
        model = from_pretrained(model).to(pick_device(device))
    seen = settled_view(model, view, setting, of_view)
    return Follower(model, seen, settled, device_of(model) if device is None else torch.device(device), accumulate_on)


def _shown(found: FramePrediction, kind: str) -> np.ndarray:
    """uint8 [H, W, 3], or class numbers [H, W]."""
    from nonlocalseg import drawing

    if kind == "index":
        return found.mask.numpy()
    if kind == "overlay":
        return found.overlay()
    return drawing.colour(found.mask.numpy(), found.palette or default_palette(int(found.mask.max()) + 1))
