"""The named views against the test pipelines that they stand for: the official ANN's and GALD's, written out literally
from their code, and masks stored from mmsegmentation's own (`python -m benchmarks.mmsegmentation_views --write`)."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from grid_network import CLASSES, GridNetwork, photograph
from scipy import ndimage
from torch import Tensor

from nonlocalseg.images import channels_first
from nonlocalseg.inference.engine import classify, infer
from nonlocalseg.inference.resizing import opencv_resize
from nonlocalseg.view import VIEWS, View, find_view, mmsegmentation_view

STORED = Path(__file__).resolve().parents[1] / "golden" / "mmsegmentation_views.npz"
ENOUGH = 0.9999


def agreement(ours: Tensor, theirs: np.ndarray) -> float:
    assert len(np.unique(theirs)) > 2
    return float((ours.numpy() == theirs).mean())


def seen_as(view: View, image: np.ndarray, align_corners: bool) -> Tensor:
    return classify(GridNetwork(align_corners), channels_first(image)[None], view, align_corners=align_corners)[0]


# --- OpenCV -----------------------------------------------------------------------------------------------------


def literal_opencv(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """OpenCV's bilinear resize of 8 bits, a pixel at a time: weights of 11 bits; after the rows four bits are dropped."""
    tall, wide, _ = image.shape
    if (tall, wide) == (2 * height, 2 * width):
        total = np.stack([image[i::2, j::2] for i in (0, 1) for j in (0, 1)]).sum(0, dtype=int)
        return ((total + 2) // 4).astype(np.uint8)

    def taps(length: int, count: int, index: int) -> tuple[int, int, int]:
        position = np.float32((index + 0.5) * (1 / (count / length)) - 0.5)
        cell = math.floor(position)
        share = np.float32(position - np.float32(cell))
        return cell, round(float(np.float32(1) - share) * 2048), round(float(share) * 2048)

    result = np.zeros((height, width, 3), np.uint8)
    for row in range(height):
        y, upper, lower = taps(tall, height, row)
        for column in range(width):
            x, left, right = taps(wide, width, column)
            if x < 0 or x >= wide - 1:
                x, left, right = min(max(x, 0), wide - 1), 2048, 0
            for channel in range(3):
                above, below = (
                    int(image[min(max(line, 0), tall - 1), x, channel]) * left
                    + int(image[min(max(line, 0), tall - 1), min(x + 1, wide - 1), channel]) * right
                    for line in (y, y + 1)
                )
                value = ((upper * (above >> 4)) >> 16) + ((lower * (below >> 4)) >> 16) + 2 >> 2
                result[row, column, channel] = min(max(value, 0), 255)
    return result


@pytest.mark.parametrize("size", [(31, 44), (23, 17), (14, 20), (28, 41), (1, 1), (50, 7)])
def test_images_are_resized_as_opencv_does(size: tuple[int, int]) -> None:
    image = np.random.RandomState(0).randint(0, 256, (28, 40, 3)).astype(np.uint8)
    ours = opencv_resize(channels_first(image)[None], size)[0].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(ours, literal_opencv(image, *size))


def test_images_are_resized_as_opencv_did() -> None:
    """Against what cv2.resize itself gave."""
    with np.load(STORED) as stored:
        names = [name for name in stored.files if name.startswith("opencv")]
        for name in names:
            size = stored[name].shape[:2]
            ours = opencv_resize(channels_first(photograph(45, 66))[None], size)[0].permute(1, 2, 0).numpy()
            np.testing.assert_array_equal(ours, stored[name], err_msg=name)
    assert len(names) == 3


# --- mmsegmentation ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in VIEWS if name.startswith("mmseg")])
def test_mmsegmentation(name: str) -> None:
    """Its resize, windows, flips and averages around the same small network."""
    with np.load(STORED) as stored:
        for size in ((75, 100), (96, 64)):
            theirs = stored[f"{name}-{size[0]}x{size[1]}"]
            assert agreement(seen_as(find_view(name), photograph(*size), "769" in name), theirs) >= ENOUGH


def test_each_detail_of_mmsegmentation_matters() -> None:
    """Without any of them the masks are others."""
    with np.load(STORED) as stored:
        once, several = stored["mmseg-ade20k-75x100"], stored["mmseg-multi-scale-75x100"]
    single, multi = find_view("mmseg-ade20k"), find_view("mmseg-multi-scale")
    image = photograph(75, 100)
    for view, theirs in (
        (replace(single, image_resize="bilinear"), once),
        (replace(single, short_side=None, long_side=None), once),
        (replace(multi, softmax="window"), several),
        (replace(multi, softmax="window", average="logits"), several),
        (replace(multi, image_resize="bilinear"), several),
        (replace(multi, flip=False), several),
    ):
        assert agreement(seen_as(view, image, False), theirs) < ENOUGH, view


def test_settings_of_mmsegmentation() -> None:
    view = mmsegmentation_view(
        "cityscapes", (769, 769), {"mode": "slide", "crop_size": [769, 769], "stride": [513, 513]}
    )
    assert (view.crop, view.stride, view.short_side, view.long_side) == ((769, 769), (513, 513), 1025, 2049)
    view = mmsegmentation_view("ade20k", (640, 640))
    assert (view.mode, view.short_side, view.long_side) == ("whole", 640, 2560)
    with pytest.raises(ValueError, match="unknown data set 'ade2k': did you mean 'ade20k'"):
        mmsegmentation_view("ade2k", (512, 512))
    with pytest.raises(ValueError, match="unknown mode of test_cfg 'tiles'"):
        mmsegmentation_view("ade20k", (512, 512), {"mode": "tiles"})


# --- The official ANN -------------------------------------------------------------------------------------------


def literal_bicubic(scores: np.ndarray, height: int, width: int) -> np.ndarray:
    """OpenCV's bicubic resize of float maps [H, W, K]: four taps with A = -0.75, the border repeated."""

    def matrix(length: int, count: int) -> np.ndarray:
        weights = np.zeros((count, length))
        for index in range(count):
            position = (index + 0.5) * length / count - 0.5
            for cell in range(math.floor(position) - 1, math.floor(position) + 3):
                t, a = abs(position - cell), -0.75
                tap = (a + 2) * t**3 - (a + 3) * t**2 + 1 if t <= 1 else a * (t**3 - 5 * t**2 + 8 * t - 4)
                weights[index, min(max(cell, 0), length - 1)] += tap
        return weights

    rows, columns = matrix(scores.shape[0], height), matrix(scores.shape[1], width)
    return np.einsum("yh,hwk,xw->yxk", rows, scores, columns)


def literal_ann(
    image: np.ndarray,
    scales: tuple[float, ...],
    short_side: int | None = None,
    fit_stride: int | None = None,
    crop: int | None = None,
    ratio: float = 0.667,
) -> np.ndarray:
    """Its tests `ms_test` and `mscrop_test`: logits of every scale, then of every scale mirrored, are summed."""
    tall, wide, _ = image.shape
    if short_side is not None:
        factor = short_side / min(tall, wide)
        image = literal_opencv(image, round(tall * factor), round(wide * factor))
    network = GridNetwork(True)
    normalised = (torch.from_numpy(image).permute(2, 0, 1)[None] / 255 - network.mean) / network.std
    total = np.zeros((tall, wide, CLASSES))

    def logits(seen: Tensor) -> np.ndarray:
        scores = network.coarse(seen * network.std + network.mean)[0]
        whole = F.interpolate(scores, seen.shape[2:], mode="bilinear", align_corners=True)
        return whole[0].permute(1, 2, 0).numpy()

    for flip in (False, True):
        for scale in scales:
            height, width = int(normalised.shape[2] * scale), int(normalised.shape[3] * scale)
            seen = F.interpolate(normalised, (height, width), mode="bilinear", align_corners=True)
            seen = seen.flip(3) if flip else seen
            if fit_stride is not None:
                seen = F.pad(seen, (0, -width % fit_stride, 0, -height % fit_stride))
            if crop is None or seen.shape[2] < crop or seen.shape[3] < crop:
                found = logits(seen)
            else:
                found, count = np.zeros((*seen.shape[2:], CLASSES)), np.zeros((*seen.shape[2:], 1))
                starts = []
                for length in seen.shape[2:]:
                    step = int(crop * ratio)
                    starts.append([step * i for i in range((length - crop) // step + 1)])
                    if length - starts[-1][-1] > crop:
                        starts[-1].append(length - crop)
                for top in starts[0]:
                    for left in starts[1]:
                        area = slice(top, top + crop), slice(left, left + crop)
                        found[area] += logits(seen[..., area[0], area[1]])
                        count[area] += 1
                found = found / count
            resized = literal_bicubic(found[:height, :width], tall, wide)
            total += resized[:, ::-1] if flip else resized
    return total


@pytest.mark.parametrize(
    ("name", "size", "smaller", "options"),
    [
        ("ann-ade20k", (53, 71), {"short_side": 64}, {"short_side": 64, "fit_stride": 8}),
        ("ann-ade20k", (75, 61), {"short_side": 40}, {"short_side": 40, "fit_stride": 8}),
        ("ann-pascal-context", (45, 62), {}, {"fit_stride": 8}),
        ("ann-cityscapes-test", (66, 130), {"crop": (54, 54)}, {"crop": 54}),
    ],
)
def test_official_ann(name: str, size: tuple[int, int], smaller: dict, options: dict) -> None:
    """At the smallest scale Cityscapes' images (here 49 of 54 pixels) are lower than the crop, and taken whole."""
    view = replace(find_view(name), **smaller)
    image = photograph(*size)
    theirs = literal_ann(image, view.scales, **options)
    ours = infer(GridNetwork(True), channels_first(image)[None], view, align_corners=True)[0].permute(1, 2, 0)
    shares = 2 * len(view.scales)
    np.testing.assert_allclose(ours.numpy() * shares, theirs, atol=2e-4 * np.abs(theirs).max())
    assert agreement(seen_as(view, image, True), theirs.argmax(-1)) >= ENOUGH
    for other in (
        replace(view, average="probabilities"),
        replace(view, score_resize="bilinear"),
        replace(view, image_resize="bilinear"),
        replace(view, pad_multiple=None) if view.pad_multiple else replace(view, small="shrink"),
    ):
        assert agreement(seen_as(other, image, True), theirs.argmax(-1)) < ENOUGH, other


# --- The official GALD ------------------------------------------------------------------------------------------


def literal_gald(image: np.ndarray, tile: int | None, scales: tuple[float, ...], flip: bool) -> np.ndarray:
    """Its `predict_sliding` (without scales) and `predict_multiscale`: float64 sums of logits."""
    network = GridNetwork(True)
    normalised = ((torch.from_numpy(image).permute(2, 0, 1)[None] / 255 - network.mean) / network.std).numpy()
    tall, wide = image.shape[:2]

    def logits(seen: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        scores = network.coarse(torch.from_numpy(np.ascontiguousarray(seen)) * network.std + network.mean)[0]
        return F.interpolate(scores, size, mode="bilinear", align_corners=True)[0].permute(1, 2, 0).numpy()

    total, count = np.zeros((tall, wide, CLASSES)), np.zeros((tall, wide, 1))
    if tile is not None:
        stride = math.ceil(tile * (1 - 1 / 3))
        rows, columns = (math.ceil((length - tile) / stride) + 1 for length in (tall, wide))
        for row in range(rows):
            for column in range(columns):
                bottom, right = min(row * stride + tile, tall), min(column * stride + tile, wide)
                top, left = max(bottom - tile, 0), max(right - tile, 0)
                seen = normalised[:, :, top:bottom, left:right]
                height, width = seen.shape[2:]
                padded = np.pad(seen, ((0, 0), (0, 0), (0, tile - height), (0, tile - width)))
                total[top:bottom, left:right] += logits(padded, (tile, tile))[:height, :width]
                count[top:bottom, left:right] += 1
        return total / count
    for scale in scales:
        # theirs leaves out the mode: at some sizes today's scipy then rounds the last line out of the image, to 0
        factors = (1.0, 1.0, scale, scale)
        zoomed = np.asarray(ndimage.zoom(normalised, factors, order=1, prefilter=False, mode="nearest"))
        found = logits(zoomed, (tall, wide))
        if flip:
            found = 0.5 * (found + logits(zoomed[..., ::-1], (tall, wide))[:, ::-1])
        total += found
    return total / len(scales)


@pytest.mark.parametrize(
    ("name", "size", "tile"),
    [
        ("gald-crop", (64, 128), 52),
        ("gald-crop", (44, 90), 52),  # lower than a tile, which is padded
        ("gald-whole", (64, 96), None),
        ("gald-multi-scale", (60, 84), None),
    ],
)
def test_official_gald(name: str, size: tuple[int, int], tile: int | None) -> None:
    view = find_view(name)
    view = view if tile is None else replace(view, crop=(tile, tile))
    image = photograph(*size)
    theirs = literal_gald(image, tile, view.scales, view.flip)
    ours = infer(GridNetwork(True), channels_first(image)[None], view, align_corners=True)[0].permute(1, 2, 0)
    np.testing.assert_allclose(ours.numpy(), theirs, atol=2e-5 * np.abs(theirs).max())
    assert agreement(seen_as(view, image, True), theirs.argmax(-1)) >= ENOUGH
    if name != "gald-whole":
        other = replace(view, score_resize="bilinear", average="probabilities")
        assert agreement(seen_as(other, image, True), theirs.argmax(-1)) < ENOUGH


def test_crops_of_832_are_where_its_code_puts_them() -> None:
    """Strides of 555 down and across 1024 x 2048."""
    from nonlocalseg.inference.windows import grid_of

    grid = grid_of(find_view("gald-crop"), (1024, 2048))
    assert [top for top, _ in grid.rows] == [0, 192]
    assert [left for left, _ in grid.columns] == [0, 555, 1110, 1216]
