"""Validation inside training and `evaluate` are two paths to one number."""

from __future__ import annotations

import pytest
import torch

from nonlocalseg.evaluation.scoring import evaluate


@pytest.mark.parametrize("options", [{}, {"short_side": 32}], ids=["plain", "short side"])
def test_training_validates_the_same(run, options):
    done = run(**options)
    scenes = {"data": "synthetic", "data_options": {"size": [48, 96], "length": 6}, "progress": False, "workers": 0}
    result = evaluate(done.folder, **scenes, **options)
    if options:
        assert not torch.equal(result.confusion, evaluate(done.folder, **scenes).confusion)
    assert result.scores.mean_iou == pytest.approx(done.miou, abs=1e-6)
    assert len(result.images) == 6
