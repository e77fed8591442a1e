"""One phase on Lightning's trainer: averages, memory, precision, frozen parts, several processes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from rich.console import Console
from stored_runs import raw, same, weights

import nonlocalseg as nls
from nonlocalseg.recipes.schema import Phase
from nonlocalseg.training.batch_norm import SharedBatchNorm
from nonlocalseg.training.folder import RunFolder
from nonlocalseg.training.module import SegmentationTraining
from nonlocalseg.training.plan import Plan, resolve
from nonlocalseg.training.trainer import fit_phase, save_memory, start_model


def test_average_is_validated_and_saved(run):
    done = run(ema=0.9)
    name = "model.head.classifier.weight"
    assert not torch.equal(raw(done.folder)[name], weights(done.folder)[name])
    assert same(weights(done.folder, "best"), {f"model.{n}": value for n, value in done.model.state_dict().items()})


@pytest.mark.parametrize("options", [{}, {"val_split": "none"}, {"accumulate": 2}], ids=["validated", "not", "parts"])
def test_average_is_that_of_every_step(run, monkeypatch, options):
    """Also of the last one before a checkpoint."""
    seen: list[dict[str, torch.Tensor]] = []
    original = SegmentationTraining.on_train_batch_end

    def keep(self: SegmentationTraining, outputs: Any, batch: Any, index: int) -> None:
        if len(seen) < self.global_step:
            seen.append({name: value.clone() for name, value in self.model.state_dict().items()})
        original(self, outputs, batch, index)

    monkeypatch.setattr(SegmentationTraining, "on_train_batch_end", keep)
    done = run(ema=0.5, val_every=6, **options)
    expected = seen[0]
    for step, now in enumerate(seen[1:], 1):
        decay = min(0.5, (1 + step) / (10 + step))
        for name, value in now.items():
            old = expected[name]
            expected[name] = old + (value - old) * (1 - decay) if value.is_floating_point() else value
    assert len(seen) == 6
    assert same(done.model.state_dict(), expected)


def test_memory_options_keep_the_result(run):
    plain = run("plain", steps=1, val_split="none")
    for option in ("checkpointing", "channels_last"):
        other = run(option, steps=1, val_split="none", **{option: True})
        first, second = weights(plain.folder), weights(other.folder)
        for name in first:
            if "running" not in name and "num_batches" not in name:
                torch.testing.assert_close(first[name], second[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("backbone", ["mobilenetv2_035", "resnet18"])
def test_checkpointing_saves_memory(backbone):
    def kept(checkpointing: bool) -> int:
        """Elements that one forward pass keeps for the backward pass."""
        model = nls.create_model("fcn", backbone, num_classes=2, channels=8, auxiliary_channels=8)
        save_memory(model, Plan(phases=(Phase(data="synthetic"),), checkpointing=checkpointing))
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            model(torch.rand(2, 3, 64, 64))
        return sum(sizes)

    assert kept(True) < 0.8 * kept(False)


def test_frozen_parts_stay_as_they_are(run):
    """Also after a validation, which switches modes."""
    old = run("old", steps=1, val_split="none")
    start = old.model
    options = {"init_from": str(old.folder), "val_every": 1, "steps": 3, "rate": 0.1}
    for frozen, kept in (("frozen_batchnorm", "running_mean"), ("frozen_backbone", "backbone.")):
        done = run(frozen, **options, **{frozen: True})
        after = weights(done.folder)
        for name, value in start.state_dict().items():
            if kept in name:
                assert torch.equal(value, after[f"model.{name}"]), (frozen, name)
        assert not torch.equal(start.state_dict()["head.classifier.weight"], after["model.head.classifier.weight"])


def test_half_precision_trains(run):
    done = run(precision="bf16", steps=2)
    assert all(torch.isfinite(value).all() for value in done.model.state_dict().values())


def test_synchronised_batch_norm_computes_the_same_on_one_device(run, tmp_path, small):
    """MobileNet's activations are part of its norms, where they are easily lost."""
    small.pop("progress")
    done = run("plain", steps=1, val_split="none")
    plan = resolve(None, {**small, "steps": 1, "val_split": "none", "sync_batchnorm": True})
    model = start_model(plan, plan.phases[0], None)
    folder = RunFolder(tmp_path / "synchronised", None, "", 1)
    folder.claim()
    fit_phase(plan, 0, model, folder, Console(quiet=True))
    assert any(isinstance(module, SharedBatchNorm) for module in model.modules())
    first, second = weights(done.folder), weights(tmp_path / "synchronised")
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-4, atol=1e-6)
