"""Validation inside training and `evaluate` are two paths to one number."""

from __future__ import annotations

import pytest
import torch

from nonlocalseg.evaluation.scoring import evaluate
from nonlocalseg.view import WHOLE


@pytest.mark.parametrize("options", [{}, {"short_side": 32}], ids=["plain", "short side"])
def test_training_validates_the_same(run, options):
    done = run(**options)
    scenes = {"data": "synthetic", "data_options": {"size": [48, 96], "length": 6}, "progress": False, "workers": 0}
    result = evaluate(done.folder, **scenes)  # as the model was validated
    if options:
        assert torch.equal(result.confusion, evaluate(done.folder, **scenes, **options).confusion)
        assert not torch.equal(result.confusion, evaluate(done.folder, **scenes, view=WHOLE).confusion)
    assert result.scores.mean_iou == pytest.approx(done.miou, abs=1e-6)
    assert len(result.images) == 6
