"""Scores against stored outputs of cityscapesScripts and mmsegmentation, and against counting pixel by pixel."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from nonlocalseg import metrics
from nonlocalseg.boundaries import BoundaryMetric
from nonlocalseg.metrics import (
    Scores,
    SegmentationMetric,
    bootstrap_difference,
    bootstrap_intervals,
    bootstrap_mean_iou,
    class_counts,
    confusion_matrix,
    scores,
    with_nan,
    without_nan,
)

STORED = np.load(Path(__file__).parent / "golden" / "metrics.npz")
PREDICTION, TARGET = (torch.from_numpy(STORED[name]) for name in ("pred_train", "gt_train"))  # uint8 [6, 96, 160]
NAN = math.nan


def matrices(prediction: torch.Tensor, target: torch.Tensor, classes: int) -> torch.Tensor:
    """The confusion matrix of each image [N, K, K + 1]."""
    return torch.stack([confusion_matrix(p, t, classes) for p, t in zip(prediction, target, strict=True)])


def drawn_counts(images: int = 40, classes: int = 5, seed: int = 0, share: float = 0.5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(classes, (images, 8, 8), generator=generator)
    wrong = torch.rand(target.shape, generator=generator) < share
    prediction = torch.where(wrong, torch.randint(classes, target.shape, generator=generator), target)
    return class_counts(matrices(prediction, target, classes))


def test_scores_are_cityscapesscripts_and_mmsegs():
    found = scores(confusion_matrix(PREDICTION, TARGET, 19))
    np.testing.assert_array_equal(found.confusion[:, :19].numpy(), STORED["conf_train"])
    assert found.mean_iou == pytest.approx(float(STORED["mean_iou"]), abs=1e-9)
    np.testing.assert_allclose(found.iou.numpy(), STORED["iou"], atol=1e-6)
    np.testing.assert_allclose(found.recall.numpy(), STORED["acc"], atol=1e-6)
    np.testing.assert_allclose(found.precision.numpy(), STORED["precision"], atol=1e-6)
    assert found.mean_accuracy == pytest.approx(float(np.nanmean(STORED["acc"])), abs=1e-6)
    assert found.pixel_accuracy == pytest.approx(float(STORED["pixel_accuracy"]), abs=1e-6)
    # train is only predicted: 0, and counts; truck is in neither: left out; pole is never predicted
    assert found.iou[16] == 0
    assert found.iou[14].isnan()
    assert found.precision[5].isnan()


@pytest.mark.shared
def test_every_class_of_cityscapesscripts(shared):
    stored = json.loads((shared / "golden" / "i_metrics.json").read_text())["cityscapes"]
    names = (
        "road sidewalk building wall fence pole,traffic light,traffic sign,vegetation terrain sky person rider car "
        "truck bus train motorcycle bicycle"
    )
    classes = [name for part in names.split(",") for name in ([part] if part.startswith("traffic") else part.split())]
    found = scores(confusion_matrix(PREDICTION, TARGET, 19))
    expected = [stored["classScores"][name] for name in classes]
    np.testing.assert_allclose(found.iou.numpy(), np.array(expected, dtype=float), atol=1e-9)
    assert found.mean_iou == pytest.approx(stored["averageScoreClasses"], abs=1e-9)


def test_confusion_matrix_counts_pixel_by_pixel():
    generator = torch.Generator().manual_seed(0)
    prediction = torch.randint(-1, 6, (2, 9, 7), generator=generator)
    target = torch.randint(0, 4, (2, 9, 7), generator=generator)
    prediction[0, 0, :3] = torch.tensor([255, 254, -7])
    target[1, :2] = 255
    expected = np.zeros((4, 5), dtype=int)
    for p, t in zip(prediction.flatten().tolist(), target.flatten().tolist(), strict=True):
        if t != 255:
            expected[t, p if 0 <= p < 4 else 4] += 1
    found = confusion_matrix(prediction, target, 4)
    assert found.dtype == torch.int64
    np.testing.assert_array_equal(found.numpy(), expected)
    np.testing.assert_array_equal(confusion_matrix(prediction.to(torch.int16), target.to(torch.uint8), 4), expected)


def test_another_ignore_index_and_empty_maps():
    target = torch.tensor([[-1, 0], [1, -1]])
    assert confusion_matrix(torch.zeros(2, 2), target, 2, ignore_index=-1).tolist() == [[1, 0, 0], [1, 0, 0]]
    assert confusion_matrix(torch.zeros(0, 4), torch.zeros(0, 4), 2).tolist() == [[0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_confusion_matrix_under_deterministic_algorithms(device):
    torch.use_deterministic_algorithms(True)
    try:
        found = confusion_matrix(PREDICTION.to(device), TARGET.to(device), 19)
        metric = SegmentationMetric(19)
        metric.update(PREDICTION.to(device), TARGET.to(device))
        assert metric.compute().mean_iou == pytest.approx(float(STORED["mean_iou"]), abs=1e-9)
    finally:
        torch.use_deterministic_algorithms(False)
    np.testing.assert_array_equal(found[:, :19].cpu().numpy(), STORED["conf_train"])


def test_scores_of_a_matrix_worked_by_hand():
    # class 0: 6 right, 2 taken for 1, 1 void; class 1: 1 right, 3 taken for 0; class 2: absent; class 3: only predicted
    matrix = torch.tensor([[6, 2, 0, 0, 1], [3, 1, 0, 2, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
    found = scores(matrix)
    torch.testing.assert_close(found.iou, torch.tensor([6 / 12, 1 / 8, NAN, 0.0]).double(), equal_nan=True)
    torch.testing.assert_close(found.precision, torch.tensor([6 / 9, 1 / 3, NAN, 0.0]).double(), equal_nan=True)
    torch.testing.assert_close(found.recall, torch.tensor([6 / 9, 1 / 6, NAN, NAN]).double(), equal_nan=True)
    assert found.mean_iou == pytest.approx((6 / 12 + 1 / 8) / 3)
    assert found.mean_accuracy == pytest.approx((6 / 9 + 1 / 6) / 2)
    assert found.pixel_accuracy == pytest.approx(7 / 15)
    assert found.frequency_weighted_iou == pytest.approx((9 * 6 / 12 + 6 / 8) / 15)
    assert found.per_class(["a", "b", "c", "d"])[3] == {
        "class": "d",
        "iou": 0.0,
        "precision": 0.0,
        "recall": None,
        "pixels": 0,
    }
    written = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert written["mean_iou"] == found.mean_iou
    assert [row["iou"] for row in written["classes"]] == [0.5, 0.125, None, 0.0]


def test_nothing_valid_is_nan_not_an_error():
    found = scores(confusion_matrix(torch.zeros(3, 3), torch.full((3, 3), 255), 2))
    assert math.isnan(found.mean_iou)
    assert math.isnan(found.pixel_accuracy)
    assert found.to_dict()["mean_iou"] is None


def test_undefined_figures_pass_through_json():
    found = {"a": (0.5, NAN), "b": NAN, "c": "x", "d": ((1, NAN),)}
    written = without_nan(found)
    assert written == {"a": [0.5, None], "b": None, "c": "x", "d": [[1, None]]}
    assert repr(with_nan(written["d"])) == repr(found["d"])
    assert repr(with_nan(written["a"])) == repr(found["a"])
    assert with_nan(None) is None


@pytest.mark.parametrize("num_classes", [1, 19])
def test_metric_sums_batches(num_classes):
    metric = SegmentationMetric(num_classes)
    prediction = PREDICTION if num_classes == 19 else torch.zeros_like(PREDICTION)
    target = TARGET if num_classes == 19 else torch.where(TARGET > 0, 255, TARGET)
    for part in range(0, 6, 2):
        metric.update(prediction[part : part + 2], target[part : part + 2])
    found = metric.compute()
    assert isinstance(found, Scores)
    assert found.iou.shape == (num_classes,)
    assert torch.equal(found.confusion, confusion_matrix(prediction, target, num_classes))
    metric.reset()
    assert not metric.confusion.any()


def _rank(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    metric = SegmentationMetric(19)
    for index in range(rank, 6, 2):
        metric.update(PREDICTION[index], TARGET[index])
    boundary = BoundaryMetric(19, thresholds=(0.005,), dilation_ratio=0.02)
    boundary.update(PREDICTION[rank, : 96 - 32 * rank], TARGET[rank, : 96 - 32 * rank])
    found = (metric.compute().confusion, boundary.compute())
    if rank == 0:
        torch.save((found[0], vars(found[1])), f"{folder}/found.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_find_what_one_finds(tmp_path):
    torch.multiprocessing.spawn(_rank, args=(str(tmp_path),), nprocs=2)
    matrix, boundary = torch.load(tmp_path / "found.pt", weights_only=True)
    assert torch.equal(matrix, confusion_matrix(PREDICTION, TARGET, 19))
    alone = BoundaryMetric(19, thresholds=(0.005,), dilation_ratio=0.02)
    for rank in (0, 1):
        alone.update(PREDICTION[rank, : 96 - 32 * rank], TARGET[rank, : 96 - 32 * rank])
    assert repr(boundary) == repr(vars(alone.compute()))


def test_class_counts_add_up_to_the_set():
    counts = class_counts(matrices(PREDICTION, TARGET, 19))
    assert counts.shape == (6, 19, 3)
    assert counts.dtype == torch.int64
    hits, alarms, misses = counts.sum(0).unbind(1)
    found = scores(confusion_matrix(PREDICTION, TARGET, 19))
    torch.testing.assert_close(hits / (hits + alarms + misses).double(), found.iou, equal_nan=True)
    assert torch.equal(hits + misses, found.truth)
    assert torch.equal(hits + alarms, found.predicted)


def plain_iou(counts: np.ndarray) -> np.ndarray:
    """[K, 3] -> [K]."""
    return np.array([row[0] / row.sum() if row.sum() else NAN for row in counts.astype(float)])


def test_bootstrap_is_the_plain_loop():
    first, second = drawn_counts(share=0.5), drawn_counts(share=0.3)
    first[:, 4] = second[:, 4] = 0  # a class in no image
    first[1:, 3] = second[1:, 3] = 0  # a class that some resamples miss
    draws = torch.randint(40, (200, 40), generator=torch.Generator().manual_seed(7)).numpy()
    before, after = (np.array([plain_iou(c.numpy()[d].sum(0)) for d in draws]) for c in (first, second))
    low, high = bootstrap_mean_iou(first, resamples=200, seed=7, level=0.9)
    expected = np.quantile(np.nanmean(before, 1), [0.05, 0.95])
    np.testing.assert_allclose([low, high], expected, rtol=1e-9)

    found = bootstrap_difference(first, second, resamples=200, seed=7, level=0.9)
    means = np.nanmean(after, 1) - np.nanmean(before, 1)
    np.testing.assert_allclose([found.low, found.high], np.quantile(means, [0.05, 0.95]), rtol=1e-9)
    classes = np.nanquantile((after - before)[:, :4], [0.05, 0.95], axis=0)
    np.testing.assert_allclose([found.iou_low[:4].numpy(), found.iou_high[:4].numpy()], classes, rtol=1e-9)
    expected = plain_iou(second.sum(0).numpy()) - plain_iou(first.sum(0).numpy())
    np.testing.assert_allclose(found.iou.numpy(), expected, rtol=1e-9)
    assert found.mean_iou == pytest.approx(np.nanmean(expected))
    assert found.iou_low[4].isnan()


@pytest.mark.parametrize("at_once", [1, 7, 120, 121])
def test_a_bootstrap_in_parts_is_the_same_to_the_last_bit(monkeypatch, at_once):
    first, second = drawn_counts(), drawn_counts(share=0.3)
    whole = bootstrap_intervals(first), bootstrap_difference(first, second)
    monkeypatch.setattr(metrics, "AT_ONCE", at_once)
    parts = bootstrap_intervals(first), bootstrap_difference(first, second)
    assert parts[0] == whole[0]
    assert (parts[1].low, parts[1].high) == (whole[1].low, whole[1].high)
    assert torch.equal(parts[1].iou_low, whole[1].iou_low)


def test_bootstrap_intervals_of_every_score_are_those_of_the_resampled_matrices():
    generator = torch.Generator().manual_seed(3)
    drawn_matrices = torch.randint(50, (7, 4, 5), generator=generator)
    drawn_matrices[:, 2] = drawn_matrices[:, :, 2] = 0  # a class that is nowhere
    counts = class_counts(drawn_matrices)
    found = bootstrap_intervals(counts, resamples=40, seed=5, level=0.8)
    drawn = torch.randint(7, (40, 7), generator=torch.Generator().manual_seed(5))
    resampled = [scores(drawn_matrices[row].sum(0)) for row in drawn]
    for name in ("mean_iou", "mean_accuracy", "pixel_accuracy", "frequency_weighted_iou"):
        assert found[name] == pytest.approx(np.quantile([getattr(s, name) for s in resampled], [0.1, 0.9]), rel=1e-12)
    assert found["mean_iou"] == bootstrap_mean_iou(counts, resamples=40, seed=5, level=0.8)


def test_bootstrap_interval_behaves_as_one():
    counts = drawn_counts(images=60)
    mean = float(np.nanmean(plain_iou(counts.sum(0).numpy())))
    low, high = bootstrap_mean_iou(counts)
    assert low < mean < high
    assert bootstrap_mean_iou(counts) == (low, high)
    assert bootstrap_mean_iou(counts, seed=1) != (low, high)
    few = bootstrap_mean_iou(counts[:15])
    assert few[1] - few[0] > high - low
    narrow = bootstrap_mean_iou(counts, level=0.5)
    assert low < narrow[0] < narrow[1] < high
    better = bootstrap_difference(counts, drawn_counts(images=60, share=0.2))
    assert 0 < better.low < better.mean_iou < better.high
    same = bootstrap_difference(counts, counts)
    assert (same.mean_iou, same.low, same.high) == (0, 0, 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: confusion_matrix(torch.zeros(2, 3), torch.zeros(3, 2), 2), "label's own size"),
        (lambda: confusion_matrix(torch.zeros(2, 2), torch.full((2, 2), 7), 2), "label 7"),
        (lambda: confusion_matrix(torch.zeros(2, 2), torch.full((2, 2), -1), 2), "label -1"),
        (lambda: scores(torch.zeros(3, 5)), "confusion is"),
        (lambda: scores(torch.zeros(2, 3)).per_class(["a"]), "1 names for 2 classes"),
        (lambda: bootstrap_mean_iou(torch.zeros(0, 2, 3)), "0 images"),
        (lambda: bootstrap_mean_iou(torch.zeros(1, 2, 3), resamples=0), "0 resamples"),
        (lambda: bootstrap_mean_iou(torch.zeros(1, 2, 3), level=95), "level is 95"),
        (lambda: bootstrap_difference(torch.zeros(1, 2, 3), torch.zeros(2, 2, 3)), "same images"),
    ],
)
def test_wrong_input_is_said_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
