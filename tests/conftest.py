"""Shared fixtures: the folder of reference data, which only the project's own machines have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Test processes that share the cores must not each start a thread per core: set before torch is imported.
if processes := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // processes))

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test downloads anything

SHARED = Path(os.environ.get("NONLOCALSEG_SHARED", Path(__file__).resolve().parents[2] / "shared"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run: `shared` without the folder, `gpu` without a CUDA device."""
    import torch

    for item in items:
        if "shared" in item.keywords and not SHARED.is_dir():
            item.add_marker(pytest.mark.skip(reason=f"{SHARED} is missing"))
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="session")
def shared() -> Path:
    return SHARED
