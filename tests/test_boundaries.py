"""Boundary scores against stored outputs of Gated-SCNN's code and against plain loops over pixels and classes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from nonlocalseg import boundaries
from nonlocalseg.boundaries import (
    BOUNDARY_THRESHOLDS,
    BoundaryMetric,
    boundary_areas,
    boundary_f,
    boundary_iou,
    boundary_radius,
    boundary_scores,
)

STORED = np.load(Path(__file__).parent / "golden" / "metrics.npz")
PREDICTION, TARGET = (torch.from_numpy(STORED[name]) for name in ("pred_train", "gt_train"))  # uint8 [6, 96, 160]
BIG = [torch.from_numpy(STORED[name][0]) for name in ("pred_big", "gt_big")]  # uint8 [512, 1024]


def blobs(seed: int = 0, size: tuple[int, int] = (60, 83), classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """A ragged pair of label maps: void in the truth, unknown labels in the prediction."""
    draw = np.random.default_rng(seed)
    smooth = [ndimage.gaussian_filter(draw.standard_normal(size), 4) for _ in range(classes)]
    other = [s + 0.6 * ndimage.gaussian_filter(draw.standard_normal(size), 3) for s in smooth]
    prediction, target = np.argmax(other, 0), np.argmax(smooth, 0)
    prediction[draw.random(size) < 0.01] = 0
    prediction[3:6, 4:9] = 77
    target[20:26, 30:50] = 255
    return torch.from_numpy(prediction), torch.from_numpy(target)


def contour(mask: np.ndarray) -> np.ndarray:
    """Whether a mask [H, W] differs from its right, lower or lower-right neighbour, those of them that count."""
    edge, (height, width) = np.zeros_like(mask), mask.shape
    for y in range(height):
        for x in range(width):
            below, right = min(y + 1, height - 1), min(x + 1, width - 1)
            neighbours = mask[y, right], mask[below, x], mask[below, right]
            edge[y, x] = any(n != mask[y, x] for n in neighbours)
    return edge


def literal(prediction: torch.Tensor, target: torch.Tensor, num_classes: int, radius: int) -> np.ndarray:
    """F of each class: contours, dilated by a disk, overlaid."""
    reach = np.arange(-radius, radius + 1)
    disk = reach[:, None] ** 2 + reach**2 <= radius**2
    f = np.zeros(num_classes)
    for label in range(num_classes):
        found, true = (contour(((m == label) & (target != 255)).numpy()) for m in (prediction, target))
        if not found.any() or not true.any():
            f[label] = float(found.any() == true.any())
            continue
        precision = (found & ndimage.binary_dilation(true, disk)).sum() / found.sum()
        recall = (true & ndimage.binary_dilation(found, disk)).sum() / true.sum()
        f[label] = 2 * precision * recall / (precision + recall) if precision + recall else 0
    return f


def test_radius_is_the_papers():
    assert [boundary_radius(t, 1024, 2048) for t in BOUNDARY_THRESHOLDS] == [3, 5, 9, 12]
    assert [boundary_radius(t, 512, 1024) for t in BOUNDARY_THRESHOLDS] == [2, 3, 5, 6]
    assert {boundary_radius(t, 360, 480) for t in BOUNDARY_THRESHOLDS} == {1, 2, 3}


@pytest.mark.parametrize("threshold", [0.00088, 0.005])
def test_f_and_precision_are_gated_scnns(threshold):
    for index in range(6):
        found = boundary_scores(PREDICTION[index], TARGET[index], 19, (threshold,))
        np.testing.assert_allclose(found.f[0].numpy(), STORED[f"f_{threshold}"][index], atol=1e-9)
        np.testing.assert_allclose(found.precision[0].numpy(), STORED[f"precision_{threshold}"][index], atol=1e-9)


def test_four_thresholds_in_one_pass_are_gated_scnns():
    found = boundary_scores(*BIG, num_classes=19)
    for row, threshold in enumerate(BOUNDARY_THRESHOLDS):
        np.testing.assert_allclose(found.f[row].numpy(), STORED[f"f_big_{threshold}"][0], atol=1e-9)
        f, present = boundary_f(*BIG, num_classes=19, threshold=threshold)
        assert torch.equal(f, found.f[row])
        assert torch.equal(present, found.present)
    backwards = boundary_scores(*BIG, num_classes=19, thresholds=BOUNDARY_THRESHOLDS[::-1])
    assert torch.equal(backwards.f, found.f.flip(0))


@pytest.mark.shared
def test_every_stored_boundary_score(shared):
    stored = np.load(shared / "golden" / "i_metrics.npz")
    for index in range(6):
        maps = (torch.from_numpy(stored[name][index]) for name in ("pred_train", "gt_train"))
        found = boundary_scores(*maps, num_classes=19)
        for row, threshold in enumerate(BOUNDARY_THRESHOLDS):
            np.testing.assert_allclose(found.f[row].numpy(), stored[f"F_{threshold}"][index], atol=1e-9)
            np.testing.assert_allclose(found.precision[row].numpy(), stored[f"precision_{threshold}"][index], atol=1e-9)


@pytest.mark.parametrize("threshold", [0.001, 0.02, 0.05, 0.1])
@pytest.mark.parametrize("lookups", [20, 0])
def test_f_is_the_literal_definition(threshold, lookups, monkeypatch):
    monkeypatch.setattr(boundaries, "_POINTS_PER_PIXEL", lookups)  # 0: by distance transform, as for noisy maps
    prediction, target = blobs()
    expected = literal(prediction, target, 6, boundary_radius(threshold, *target.shape))
    f, present = boundary_f(prediction, target, 6, threshold)
    np.testing.assert_allclose(f.numpy(), expected, atol=1e-12)
    assert present.tolist() == [True] * 5 + [False]


def test_noise_is_scored_alike_by_both_searches(monkeypatch):
    noise = torch.randint(5, (60, 83), generator=torch.Generator().manual_seed(0))
    by_distance = boundary_scores(noise, blobs()[1], 5, (0.02, 0.1))
    monkeypatch.setattr(boundaries, "_POINTS_PER_PIXEL", 1e9)
    by_lookup = boundary_scores(noise, blobs()[1], 5, (0.02, 0.1))
    assert torch.equal(by_distance.f, by_lookup.f)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (6, 1), (2, 2)])
def test_tiny_images(size):
    generator = torch.Generator().manual_seed(1)
    prediction, target = torch.randint(3, (2, *size), generator=generator)
    f, _ = boundary_f(prediction, target, 3, 0.2)
    np.testing.assert_allclose(f.numpy(), literal(prediction, target, 3, boundary_radius(0.2, *size)), atol=1e-12)


def test_rules_for_classes_that_are_missing():
    target = torch.zeros(20, 30, dtype=torch.long)
    prediction = target.clone()
    f, present = boundary_f(prediction, target, 2, 0.01)
    assert f.tolist() == [1, 1]  # class 0 fills the image: no boundary in either map
    assert present.tolist() == [True, False]
    prediction[5:9, 5:9] = 1
    f, present = boundary_f(prediction, target, 2, 0.01)
    assert f.tolist() == [0, 0]
    assert present.tolist() == [True, True]
    f, present = boundary_f(prediction, torch.full_like(target, 255), 2, 0.01)
    assert f.tolist() == [1, 1]  # all void: background in both maps
    assert present.tolist() == [False, False]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_deterministic_algorithms_change_nothing(device):
    maps = blobs()
    expected = boundary_scores(*maps, num_classes=5), boundary_iou(*maps, num_classes=5)
    torch.use_deterministic_algorithms(True)
    try:
        there = [m.to(device) for m in maps]
        found = boundary_scores(*there, num_classes=5), boundary_iou(*there, num_classes=5)
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(found[0].f.cpu(), expected[0].f)
    assert torch.equal(found[1].cpu(), expected[1])


def test_mean_over_a_set_by_both_rules():
    metric = BoundaryMetric(19)
    metric.update(PREDICTION[:4], TARGET[:4])
    metric.update(PREDICTION[4], TARGET[4])
    metric.update(PREDICTION[5], TARGET[5])
    found = metric.compute()
    assert found.images == 6
    assert found.radii == ((1, 1),) * 4
    assert found.published[3] == pytest.approx(float(STORED["published"]), abs=1e-9)
    assert found.present[3] == pytest.approx(float(STORED["present"]), abs=1e-9)
    np.testing.assert_allclose(found.published_classes[3], STORED["f_0.005"].mean(0), atol=1e-9)
    assert math.isnan(found.present_classes[3][14])
    assert found.boundary_iou is None


def test_set_of_two_sizes_tells_both_radii():
    metric = BoundaryMetric(19, thresholds=(0.005,), dilation_ratio=0.02)
    pairs = [(PREDICTION[0], TARGET[0]), tuple(BIG)]
    for pair in pairs:
        metric.update(*pair)
    found = metric.compute()
    assert found.radii == ((1, 6),)
    areas = sum(boundary_areas(*pair, num_classes=19) for pair in pairs)
    assert isinstance(areas, torch.Tensor)
    np.testing.assert_allclose(found.boundary_iou or (), (areas[:, 0] / areas[:, 1]).numpy(), rtol=1e-6)
    assert found.mean_boundary_iou == pytest.approx(np.nanmean(found.boundary_iou or ()))


def test_empty_set_is_nan():
    found = BoundaryMetric(2, thresholds=(0.1,)).compute()
    assert found.images == 0
    assert math.isnan(found.published[0])
    assert found.radii == ((0, 0),)


@pytest.mark.parametrize("ratio", [0.001, 0.02, 0.1, 0.4])
def test_boundary_iou_is_its_definition(ratio):
    prediction, target = blobs()
    depth = max(1, round(ratio * math.hypot(*target.shape)))
    expected = []
    for label in range(6):
        bands = []
        for m in (prediction, target):
            mask = ((m == label) & (target != 255)).numpy()
            core = ndimage.binary_erosion(np.pad(mask, 1), np.ones((3, 3)), iterations=depth)
            bands.append(mask & ~np.asarray(core, dtype=bool)[1:-1, 1:-1])
        union = (bands[0] | bands[1]).sum()
        expected.append((bands[0] & bands[1]).sum() / union if union else math.nan)
    np.testing.assert_allclose(boundary_iou(prediction, target, 6, ratio).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p, t: boundary_f(p[None], t[None], 5, 0.1), "one image at a time"),
        (lambda p, t: boundary_f(p[1:], t, 5, 0.1), "one image at a time"),
        (lambda p, t: boundary_f(p, t, 3, 0.1), "correct num_classes"),
        (lambda p, t: boundary_scores(p, t, 5, ()), "thresholds is empty"),
        (lambda p, t: boundary_iou(p, t, 5, 0.0), "dilation_ratio is 0.0"),
        (lambda p, t: boundary_f(p, t, 5, -0.1), "threshold is -0.1"),
    ],
)
def test_wrong_input_is_said_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call(*blobs())
    assert "\n" not in str(error.value)
