"""Which process this is, by whoever started it."""

from __future__ import annotations

import os

import pytest
import torch

from nonlocalseg import runtime


@pytest.fixture
def begun(monkeypatch):
    """`begun(names)`: as a process that was started with these in its environment."""
    for name in list(os.environ):
        if name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK") or name.startswith("SLURM_"):
            monkeypatch.delenv(name)
    return lambda started: [monkeypatch.setenv(name, text) for name, text in started.items()]


@pytest.mark.parametrize(
    ("started", "rank", "training"),
    [
        ({}, 0, 0),
        ({"RANK": "2", "LOCAL_RANK": "0", "WORLD_SIZE": "4"}, 2, 2),  # torchrun
        ({"LOCAL_RANK": "1", "WORLD_SIZE": "2"}, 1, 1),  # Lightning's own launcher
        ({"SLURM_PROCID": "3"}, 0, 3),  # srun: evaluations are one each, a training is one for all
        ({"NODE_RANK": "1"}, 0, 1),  # a second machine, before its training is connected
    ],
)
def test_ranks(begun, started, rank, training):
    begun(started)
    assert (runtime.rank(), runtime.training_rank()) == (rank, training)
    assert runtime.rank() < runtime.world_size()


TORCHRUN = {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
SLURM = {"SLURM_PROCID": "3", "SLURM_NTASKS": "6", "SLURM_NNODES": "3", "SLURM_JOB_NAME": "train"}


@pytest.mark.parametrize(
    ("started", "devices", "nodes", "grid"),
    [
        ({}, "auto", None, (1, 1)),
        ({}, 2, None, (2, 1)),
        ({}, 2, 3, (2, 3)),
        (TORCHRUN, "auto", None, (4, 2)),
        (TORCHRUN, 4, 2, (4, 2)),
        (SLURM, "auto", None, (2, 3)),
        ({**SLURM, "SLURM_JOB_NAME": "interactive"}, "auto", None, (1, 1)),
        ({**SLURM, **TORCHRUN}, "auto", None, (4, 2)),
    ],
)
def test_processes_of_a_training(begun, monkeypatch, started, devices, nodes, grid):
    monkeypatch.setattr(runtime.torch.cuda, "device_count", lambda: 0)
    begun(started)
    assert runtime.process_grid(devices, nodes) == grid


@pytest.mark.parametrize(
    ("started", "devices", "nodes", "words"),
    [
        (TORCHRUN, 2, None, "--devices: 2, but torchrun has started 4 processes on each machine: leave --devices out"),
        (SLURM, "auto", 2, "--num-nodes: 2, but SLURM has started 3 machines: leave --num-nodes out"),
    ],
)
def test_other_processes_than_were_started(begun, started, devices, nodes, words):
    begun(started)
    with pytest.raises(ValueError, match=words):
        runtime.process_grid(devices, nodes)


def test_what_a_process_alone_has():
    found = torch.ones(3, requires_grad=True)
    assert runtime.sum_over_processes(found) is found
    assert runtime.mean_over_processes(found) is found
    assert runtime.stack_over_processes(found).shape == (1, 3)
    assert runtime.gather("a") == ["a"]
