"""Photographs as a network sees them, at the sizes and in the windows of a view: what an INT8 file is calibrated on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

import torch
from torch import Tensor

from nonlocalseg.images import channels_first, images_below, maker_of, read_image
from nonlocalseg.inference.engine import look
from nonlocalseg.view import WHOLE, View

MOST = 64
"""Photographs that are taken of a folder; ranges hardly move with more."""


@dataclass(frozen=True)
class CalibrationImages(Sequence[Tensor]):
    """Of each photograph one thing that the network sees of it, float32 [1, 3, h, w] in [0, 1]; read when it is asked
    for. Where a photograph is seen in several windows, or scales, each photograph shows another of them."""

    photographs: tuple[Path, ...]
    view: View

    def __len__(self) -> int:
        return len(self.photographs)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> CalibrationImages: ...
    def __getitem__(self, index: int | slice) -> Tensor | CalibrationImages:
        if isinstance(index, slice):
            return replace(self, photographs=self.photographs[index])
        seen: list[Tensor] = []

        def network(images: Tensor) -> Tensor:
            seen.append(images)
            return images.new_zeros(len(images), 1, *images.shape[2:])

        image = channels_first(read_image(self.photographs[index]))[None]
        with torch.no_grad():
            look(network, image, self.view).best(keep=False)
        return seen[index % len(seen)].contiguous()


def calibration_images(folder: str | Path, view: View = WHOLE) -> CalibrationImages:
    """At most `MOST` photographs, evenly spread over those in `folder` and the folders in it.

    view: how the network will see them; `model.view` by default of what is exported. Raises FileNotFoundError for a
    missing folder, ValueError for one without photographs, and, where they are read, for one that cannot be.
    """
    place = Path(folder).expanduser()
    if not place.is_dir():
        raise FileNotFoundError(
            f"calibrate: {place} is no folder: give one with photographs like those to be predicted"
        )
    found = [path for path in images_below(place) if maker_of(path) is None]
    if not found:
        raise ValueError(f"calibrate: {place} holds no photographs: give a folder with some like those to be predicted")
    if view.mode == "stream":  # in tiles a whole image is seen as it would be at once
        view = replace(view, mode="whole", crop=None, regional=None)
    count = min(MOST, len(found))
    return CalibrationImages(tuple(found[number * len(found) // count] for number in range(count)), view)
