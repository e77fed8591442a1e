"""Everything that happens to a training image after it is read, in the order in which it happens."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from nonlocalseg.data.augmentation import Augmentation
from nonlocalseg.labels import IGNORE

IMAGENET_MEAN = (0.485, 0.456, 0.406)
REDRAWS = 10  # of a crop that one class fills


def train_transform(augmentation: Augmentation, mean: tuple[float, float, float] = IMAGENET_MEAN) -> v2.Compose:
    """Every augmentation of a training image and its label, in order.

    mean: RGB in [0, 1] that pads the image; the label is padded with 255. All draws come from torch's generator. Takes
    uint8 or float images, gives float32 in [0, 1].
    """
    return v2.Compose(
        [
            RandomScaleCrop(
                augmentation.crop, augmentation.scale, mean, augmentation.class_balance, augmentation.short_side
            ),
            v2.RandomHorizontalFlip(augmentation.flip),
            v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),  # [0, 1]
            v2.ColorJitter(brightness=augmentation.brightness),
        ]
    )


class RandomScaleCrop(v2.Transform):
    """Enlarge by a random factor, cut a random crop, pad what is smaller: one step, because only the crop is resized.

    Resizing the whole image and cropping afterwards gives the same distribution of crops, up to rounding the window to
    whole pixels, but at factor 2 it computes up to 17 times as many pixels (769x769 from 2048x1024). The arguments are
    those of `Augmentation`, which checks them; short_side: pixels that the shorter side of the image has at scale 1.
    """

    def __init__(
        self,
        crop: tuple[int, int],
        scale: tuple[float, float] = (0.5, 2.0),
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        class_balance: float | None = None,
        short_side: int | None = None,
    ) -> None:
        super().__init__()
        self.crop, self.scale, self.mean = crop, scale, mean
        self.class_balance, self.short_side = class_balance, short_side

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        image = next(item for item in flat_inputs if isinstance(item, tv_tensors.Image))
        label = next((item for item in flat_inputs if isinstance(item, tv_tensors.Mask)), None)
        factor = torch.empty(()).uniform_(*self.scale).item()
        if self.short_side is not None:
            factor *= self.short_side / min(image.shape[-2:])
        axes = list(zip(image.shape[-2:], self.crop, strict=True))
        window = [_draw(length, crop, factor) for length, crop in axes]
        if self.class_balance is not None and label is not None:
            for _ in range(REDRAWS):
                if _largest_share(label, window) <= self.class_balance:
                    break
                window = [_draw(length, crop, factor) for length, crop in axes]
        return {"window": window}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        rows, columns = params["window"]
        part = inpt[..., rows.start : rows.stop, columns.start : columns.stop]
        size = [rows.size, columns.size]
        right = self.crop[1] - columns.size - columns.before
        below = self.crop[0] - rows.size - rows.before
        padding = [columns.before, rows.before, right, below]
        if isinstance(inpt, tv_tensors.Mask):
            # torchvision resizes masks with "nearest", which shifts them by up to half a pixel against the image;
            # "nearest_exact" does not. It is reached by resizing the mask as a picture of one channel.
            picture = tv_tensors.Image(part.unsqueeze(0))
            part = F.resize(picture, size, interpolation=InterpolationMode.NEAREST_EXACT)[0]
            return tv_tensors.Mask(F.pad(tv_tensors.Mask(part), padding, fill=IGNORE))
        part = F.resize(tv_tensors.Image(part), size, interpolation=InterpolationMode.BILINEAR, antialias=True)
        fill = [value if inpt.is_floating_point() else float(round(255 * value)) for value in self.mean]
        return F.pad(part, padding, fill=fill)


class _Window(NamedTuple):
    """One axis of a crop: source pixels start..stop become `size` pixels, after `before` pixels of padding."""

    start: int
    stop: int
    size: int
    before: int


def _draw(length: int, crop: int, factor: float) -> _Window:
    """A random window of one axis, `length` source pixels long, for a crop of `crop` pixels at this enlargement."""
    scaled = max(round(length * factor), 1)
    if scaled <= crop:
        return _Window(0, length, scaled, _random_integer(crop - scaled))
    span = min(max(round(crop / factor), 1), length)
    start = _random_integer(length - span)
    return _Window(start, start + span, crop, 0)


def _random_integer(largest: int) -> int:
    return int(torch.randint(largest + 1, ()).item())


def _largest_share(label: Tensor, window: list[_Window]) -> float:
    """The share of the most frequent class among the valid pixels; 1 where none is valid. Samples about 128 x 128."""
    rows, columns = window
    step = max(min(rows.stop - rows.start, columns.stop - columns.start) // 128, 1)
    part = label[rows.start : rows.stop : step, columns.start : columns.stop : step].reshape(-1)
    counts = torch.bincount(part[part != IGNORE])
    return float(counts.max() / counts.sum()) if counts.numel() else 1.0
