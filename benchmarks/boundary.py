"""Times `metrics.boundary_scores` against the plain loop over classes and thresholds, on a drawn street-like scene.

    python benchmarks/boundary.py [--rounds 3] [--size 1024 2048] [--noise 0.002]

Both are run in turn; the median ratio of processor times is printed, and the scores must agree to 1e-9.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
from scipy import ndimage

from nonlocalseg.boundaries import BOUNDARY_THRESHOLDS, boundary_radius, boundary_scores
from nonlocalseg.labels import IGNORE

CLASSES = 19


def scene(height: int, width: int, seed: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """A label map of blobs and poles with void, and a prediction with shifted, ragged contours and specks."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    truth = np.select([y < 0.35 * height, y < 0.6 * height], [10, 2], 0).astype(np.uint8)
    for _ in range(160):
        label, cy, cx = draw.integers(0, CLASSES), draw.uniform(0, height), draw.uniform(0, width)
        ry, rx = draw.uniform(0.01, 0.1, 2) * height
        truth[((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1] = label
    truth[-height // 16 :] = IGNORE
    wobble = [ndimage.gaussian_filter(draw.standard_normal((height, width)), 6) * 60 for _ in range(2)]
    rows = np.clip(y + wobble[0], 0, height - 1).astype(int)
    columns = np.clip(x + wobble[1], 0, width - 1).astype(int)
    prediction = np.where(truth == IGNORE, 0, truth)[rows, columns]
    specks = draw.random((height, width)) < noise
    return np.where(specks, draw.integers(0, CLASSES, (height, width)), prediction).astype(np.uint8), truth


def contour(mask: np.ndarray) -> np.ndarray:
    edge = np.zeros_like(mask)
    edge[:-1, :-1] = (mask[:-1, :-1] != mask[:-1, 1:]) | (mask[:-1, :-1] != mask[1:, :-1])
    edge[:-1, :-1] |= mask[:-1, :-1] != mask[1:, 1:]
    edge[-1, :-1] = mask[-1, :-1] != mask[-1, 1:]
    edge[:-1, -1] = mask[:-1, -1] != mask[1:, -1]
    return edge


def dilate(edge: np.ndarray, radius: int) -> np.ndarray:
    """Dilation by a disk."""
    reach = np.arange(-radius, radius + 1)
    return np.asarray(ndimage.binary_dilation(edge, reach[:, None] ** 2 + reach**2 <= radius**2))


def loop(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The definition, class by class and threshold by threshold."""
    scores = np.ones((len(BOUNDARY_THRESHOLDS), CLASSES))
    for row, threshold in enumerate(BOUNDARY_THRESHOLDS):
        radius = boundary_radius(threshold, *target.shape)
        for label in range(CLASSES):
            found, true = (contour((m == label) & (target != IGNORE)) for m in (prediction, target))
            if found.any() and true.any():
                precision = (found & dilate(true, radius)).sum() / found.sum()
                recall = (true & dilate(found, radius)).sum() / true.sum()
                scores[row, label] = 2 * precision * recall / max(precision + recall, 1e-300)
            else:
                scores[row, label] = float(found.any() == true.any())
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, nargs=2, default=(1024, 2048), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--noise", type=float, default=0.002, help="share of wrong specks in the prediction")
    options = parser.parse_args()
    ratios = []
    for index in range(options.rounds):
        prediction, target = scene(*options.size, seed=index, noise=options.noise)
        start = time.process_time()
        expected = loop(prediction, target)
        plain = time.process_time() - start
        start = time.process_time()
        f = boundary_scores(torch.from_numpy(prediction), torch.from_numpy(target), CLASSES).f.numpy()
        ours = time.process_time() - start
        assert np.abs(f - expected).max() < 1e-9
        ratios.append(plain / ours)
        print(
            f"scene {index}: loop {plain:.2f} s, boundary_scores {ours:.3f} s, {ratios[-1]:.0f}x, mean F {f.mean():.3f}"
        )
    print(f"median {statistics.median(ratios):.0f}x, four thresholds, {CLASSES} classes, {options.size}")


if __name__ == "__main__":
    main()
