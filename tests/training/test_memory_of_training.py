"""A step that memory does not suffice for: what fits is tried out and named, whoever lacked the memory."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from stored_runs import one_line

from nonlocalseg.cli.errors import FAILED, describe
from nonlocalseg.training.memory import StepTooLarge
from nonlocalseg.training.module import SegmentationTraining

GPU = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
CPU = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"
)


def limited(
    monkeypatch, pixels: int, error: BaseException = GPU, method: str = "training_step"
) -> list[tuple[int, ...]]:
    """A machine on which `method` takes no more pixels than this at once; the sizes that were asked for."""
    original, asked = getattr(SegmentationTraining, method), []

    def step(self: SegmentationTraining, batch: dict[str, Any], index: int) -> Any:
        count, _, height, width = batch["image"].shape
        asked.append((count, height, width))
        if count * height * width > pixels:
            raise error
        return original(self, batch, index)

    monkeypatch.setattr(SegmentationTraining, method, step)
    return asked


@pytest.mark.parametrize(
    ("pixels", "options", "said"),
    [
        (4 * 48 * 64, {}, "with 8 crops of 48x64 at once: --accumulate 2 (or --batch-size 4) fits; it was tried"),
        (3 * 48 * 64, {}, "with 8 crops of 48x64 at once: --accumulate 4 (or --batch-size 2) fits"),
        (48 * 64, {"accumulate": 2}, "with 4 crops of 48x64 at once: --accumulate 8 (or --batch-size 2) fits"),
        (32 * 32, {}, "with 8 crops of 48x64 at once: --crop 32 32 with --accumulate 8 (or --batch-size 1) fits"),
        (32 * 32, {"batch_size": 1}, "with 1 crops of 48x64 at once: --crop 32 32 fits; it was tried"),
        (2 * 32 * 32, {"batch_size": 2}, "with 2 crops of 48x64 at once: --crop 32 32 fits; it was tried"),
        (100, {}, "and so it is with every smaller crop that was tried: take a smaller --backbone"),
    ],
)
def test_what_fits_is_named(run, tmp_path, monkeypatch, pixels, options, said):
    asked = limited(monkeypatch, pixels)
    network = {"channels": 8, "auxiliary_channels": 8}
    with pytest.raises(StepTooLarge, match="memory is full") as error:
        run(**{"model": "fcn", "model_options": network, "batch_size": 8, "val_split": "none", **options})
    assert said in one_line(error)
    assert asked[0][1:] == (48, 64)
    assert describe(error.value) == (f"error: {error.value}", FAILED)
    assert not (tmp_path / "run").exists()


def test_the_memory_of_the_cpu(run, monkeypatch):
    limited(monkeypatch, 48 * 64, CPU)
    with pytest.raises(StepTooLarge, match=r"--accumulate 2 \(or --batch-size 1\) fits; it was tried") as error:
        run(val_split="none", model="fcn", model_options={"channels": 8, "auxiliary_channels": 8})
    one_line(error)


def test_the_validation(run, tmp_path, monkeypatch):
    """It comes after steps that went well: they are kept."""
    limited(monkeypatch, 100, CPU, "validation_step")
    with pytest.raises(StepTooLarge, match=r"full in the validation: make its images smaller by --short-side") as error:
        run()
    one_line(error)


def test_other_errors_stay_what_they_are(run, monkeypatch):
    limited(monkeypatch, 100, RuntimeError("something else"))
    with pytest.raises(RuntimeError, match="something else"):
        run()


def test_what_readers_share_is_left_out_of_collections_of_garbage(run, monkeypatch):
    """A collection writes to all that it looks at, and so copies it."""
    original, left_out = SegmentationTraining.training_step, []

    def step(self: SegmentationTraining, batch: dict[str, Any], index: int) -> Any:
        left_out.append(gc.get_freeze_count())
        return original(self, batch, index)

    monkeypatch.setattr(SegmentationTraining, "training_step", step)
    run()
    assert min(left_out) > 100_000
    assert gc.get_freeze_count() == 0
