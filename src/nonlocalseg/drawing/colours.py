"""Colours: masks in their colours, maps of right and wrong, shades; exact pixels, nothing written on them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from nonlocalseg.labels import IGNORE, Colour, Palette

VOID_COLOUR: Colour = (0, 0, 0)
WHITE: Colour = (255, 255, 255)
INK: Colour = (20, 20, 20)
RIGHT: Colour = (232, 232, 232)
WRONG: Colour = (190, 60, 0)
UNSCORED: tuple[Colour, Colour] = (170, 170, 170), (205, 205, 205)  # the two stripes
OKABE_ITO: tuple[Colour, ...] = (
    (230, 159, 0),  # orange
    (86, 180, 233),  # sky blue
    (0, 158, 115),  # bluish green
    (240, 228, 66),  # yellow
    (0, 114, 178),  # blue
    (213, 94, 0),  # vermilion
    (204, 121, 167),  # reddish purple
    (153, 153, 153),  # grey; their eighth colour, black, is kept for void
)
STRIP_ROWS = 512  # rows blended at once
RGB_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
_PALE, _DARK = np.array([95.0, -1.0, -4.0]), np.array([22.0, 16.0, -43.0])  # CIELAB, all on screen
_BROWN = np.array([36.0, 28.0, 44.0])


def colour(mask: ArrayLike, palette: Palette) -> np.ndarray:
    """Class indices [H, W] -> uint8 [H, W, 3]; 255 becomes black. Raises ValueError for an index without a colour."""
    indices = np.asarray(mask)
    table = np.zeros((max(256, len(palette)), 3), np.uint8)
    table[IGNORE] = VOID_COLOUR
    table[: len(palette)] = np.asarray(palette, np.uint8).reshape(-1, 3)
    wrong = indices[(indices < 0) | ((indices >= len(palette)) & (indices != IGNORE))]
    if wrong.size:
        raise ValueError(f"mask: class {wrong[0]} has no colour; the palette has {len(palette)} (0-{len(palette) - 1})")
    return table[indices]


def overlay(image: np.ndarray, mask: ArrayLike, palette: Palette, opacity: float = 0.5) -> np.ndarray:
    """The mask's colours over the image uint8 [H, W, 3], of the same size; void shows the image alone."""
    indices = np.asarray(mask)
    if image.shape[:2] != indices.shape:
        raise ValueError(f"mask: {list(indices.shape)} over an image of {list(image.shape[:2])}; sizes must agree")
    result = np.empty_like(image)
    for start in range(0, len(image), STRIP_ROWS):
        rows = slice(start, start + STRIP_ROWS)
        share = np.where(indices[rows] == IGNORE, 0, opacity)[..., None].astype(np.float32)
        result[rows] = (image[rows] * (1 - share) + colour(indices[rows], palette) * share + 0.5).astype(np.uint8)
    return result


def error_map(prediction: ArrayLike, target: ArrayLike) -> np.ndarray:
    """Where a prediction [H, W] is wrong: right light, wrong dark red, unlabelled striped. uint8 [H, W, 3]."""
    said, truth = np.asarray(prediction), np.asarray(target)
    if said.shape != truth.shape:
        raise ValueError(f"prediction: {list(said.shape)} for a target of {list(truth.shape)}; sizes must agree")
    period = max(8, max(truth.shape) // 60)
    y, x = np.ogrid[: truth.shape[0], : truth.shape[1]]
    stripes = ((x + y) // (period // 2) % 2).astype(np.uint8)
    picture = np.array([WRONG, RIGHT], np.uint8)[(said == truth).astype(np.uint8)]
    return np.where((truth == IGNORE)[..., None], np.array(UNSCORED, np.uint8)[stripes], picture)


def ink_on(colour: Sequence[int]) -> Colour:
    """The ink, dark or white, that is read more easily on a colour."""
    return INK if np.dot(colour, (0.299, 0.587, 0.114)) > 120 else WHITE


def from_lab(lab: np.ndarray) -> np.ndarray:
    """CIELAB [..., 3] under D65 -> sRGB 0-1 [..., 3]; colours that no screen shows are clipped."""
    f = np.stack([lab[..., 1] / 500, np.zeros_like(lab[..., 0]), -lab[..., 2] / 200], -1) + (lab[..., :1] + 16) / 116
    xyz = np.where(f > 6 / 29, f**3, (f - 16 / 116) / 7.787) * np.array([0.9505, 1.0, 1.089])
    linear = np.clip(xyz @ np.linalg.inv(RGB_TO_XYZ).T, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def shades(values: ArrayLike) -> np.ndarray:
    """Numbers from 0 (nearly white) to 1 (dark blue) [...] -> sRGB 0-1 [..., 3], evenly spaced to the eye.

    A straight line in CIELAB: one hue, and lightness falls in proportion, so that it reads the same in grey.
    """
    share = np.clip(np.asarray(values, np.float64), 0, 1)[..., None]
    return from_lab((1 - share) * _PALE + share * _DARK)


def diverging(values: ArrayLike) -> np.ndarray:
    """Numbers from -1 (brown) over 0 (nearly white) to 1 (dark blue) [...] -> sRGB 0-1 [..., 3].

    Brown and blue are told apart by every eye, and lightness says in grey how far from 0 a number is.
    """
    share = np.clip(np.asarray(values, np.float64), -1, 1)[..., None]
    return from_lab(_PALE + np.abs(share) * (np.where(share < 0, _BROWN, _DARK) - _PALE))
