"""Which process this is, by whoever started it."""

from __future__ import annotations

import pytest

from nonlocalseg import runtime


@pytest.mark.parametrize(
    ("started", "rank", "training"),
    [
        ({}, 0, 0),
        ({"RANK": "2", "LOCAL_RANK": "0", "WORLD_SIZE": "4"}, 2, 2),  # torchrun
        ({"LOCAL_RANK": "1", "WORLD_SIZE": "2"}, 1, 1),  # Lightning's own launcher
        ({"SLURM_PROCID": "3"}, 0, 3),  # srun: evaluations are one each, a training is one for all
    ],
)
def test_ranks(monkeypatch, started, rank, training):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, number in started.items():
        monkeypatch.setenv(name, number)
    assert (runtime.rank(), runtime.training_rank()) == (rank, training)
    assert runtime.rank() < runtime.world_size()
