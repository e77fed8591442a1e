"""The sped-up model gives the model's scores within half precision, and says what it chose."""

from __future__ import annotations

import pytest
import torch
from test_models import small

from nonlocalseg.models import speed


@pytest.mark.parametrize("bfloat16", [True, False])
def test_scores_stay_within_the_precision(monkeypatch, bfloat16):
    monkeypatch.setattr(speed, "cpu_has_bfloat16", lambda: bfloat16)
    model = small("ann").eval()
    fast = speed.speed_up(model)
    images = torch.rand(2, 3, 49, 66)
    with torch.no_grad():
        expected, got = model(images)["out"], fast(images)["out"]
    assert got.dtype == torch.float32
    largest = expected.abs().max()
    assert (got - expected).abs().max() <= (0.05 if bfloat16 else 1e-5) * largest
    assert fast.model.folded
    assert fast.precision == (torch.bfloat16 if bfloat16 else torch.float32)
    assert any(("bfloat16" if bfloat16 else "float32") in choice for choice in fast.choices)
    assert (fast.classes, fast.palette, fast.num_classes) == (model.classes, model.palette, 5)
    assert not model.folded


@pytest.mark.parametrize("bfloat16", [True, False])
def test_fine_maps_stay_in_float32(monkeypatch, bfloat16):
    """Up to stride 4, and where bfloat16 was chosen only."""
    monkeypatch.setattr(speed, "cpu_has_bfloat16", lambda: bfloat16)
    fast, found = speed.speed_up(small("fcn").eval()), []
    for conv in fast.model.backbone.modules():
        if isinstance(conv, torch.nn.Conv2d):
            conv.register_forward_hook(lambda _, given, out: found.append((out.shape[-1] >= 16, out.dtype)))
    fast(torch.rand(1, 3, 64, 64))
    coarse = torch.bfloat16 if bfloat16 else torch.float32
    assert {dtype for fine, dtype in found if fine} == {torch.float32}
    assert {dtype for fine, dtype in found if not fine} == {coarse}
    assert any("stride 4" in choice for choice in fast.choices) == bfloat16


def test_evaluation_says_what_it_chose(monkeypatch):
    monkeypatch.setattr("nonlocalseg.exporting.fast_form.NEEDED", ("no_such_package",))
    from nonlocalseg.evaluation.scoring import evaluate

    model = small("fcn", classes=9).eval()
    options = {"data": "synthetic", "split": "test", "data_options": {"length": 2, "size": (64, 256)}, "workers": 0}
    plain = evaluate(model, **options, progress=False)
    fast = evaluate(model, **options, fast=True, progress=False)
    assert fast.settings.fast[0] == "folded"
    assert abs(fast.scores.pixel_accuracy - plain.scores.pixel_accuracy) < 0.1
    with pytest.raises(ValueError, match="leave out --precision"):
        evaluate(model, **options, fast=True, precision="bf16", progress=False)
