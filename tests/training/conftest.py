"""A training small enough for tests: drawn scenes, a narrow network, a few steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nonlocalseg.training.runs import TrainingRun, train

SMALL: dict[str, Any] = {
    "data": "synthetic",
    "data_options": {"size": [48, 96], "length": 6},
    "model": "ann",
    "backbone": "mobilenetv2_035",
    "model_options": {"channels": 16, "key_channels": 8, "value_channels": 8, "auxiliary_channels": 16},
    "steps": 6,
    "batch_size": 2,
    "crop": (48, 64),
    "rate": 1e-3,
    "val_every": 3,
    "workers": 0,
    "progress": False,
}


@pytest.fixture
def small() -> dict[str, Any]:
    return dict(SMALL)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., TrainingRun]:
    """`run(name, **options)` trains the small model in `tmp_path / name`."""

    def trained(name: str = "run", **options: Any) -> TrainingRun:
        return train(out=tmp_path / name, **{**SMALL, **options})

    return trained
