"""A training small enough for tests: drawn scenes, a narrow network, a few steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_run import SMALL

from nonlocalseg.training.runs import TrainingRun, train


@pytest.fixture
def small() -> dict[str, Any]:
    return dict(SMALL)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., TrainingRun]:
    """`run(name, **options)` trains the small model in `tmp_path / name`."""

    def trained(name: str = "run", **options: Any) -> TrainingRun:
        return train(out=tmp_path / name, **{**SMALL, **options})

    return trained
