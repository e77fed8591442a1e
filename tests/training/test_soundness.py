"""Steps whose loss or gradient is no number: named and kept, and the run stops, or goes on without them."""

from __future__ import annotations

import csv
import math
from typing import Any

import pytest
import torch
from stored_runs import draw_folder, one_line, raw, same

from nonlocalseg.training import soundness
from nonlocalseg.training.module import SegmentationTraining
from nonlocalseg.training.runs import train


def spoilt(monkeypatch, batches, factor=math.nan) -> None:
    """These batches have a loss, and so gradients, times `factor`."""
    original = SegmentationTraining.training_step

    def step(self: SegmentationTraining, batch: Any, index: int) -> dict[str, torch.Tensor]:
        if index in batches and not math.isfinite(factor):
            batch = {**batch, "image": batch["image"] * factor}  # statistics of batch norm break as well
            return original(self, batch, index)
        found = original(self, batch, index)
        return {name: value * factor for name, value in found.items()} if index in batches else found

    monkeypatch.setattr(SegmentationTraining, "training_step", step)


@pytest.fixture
def pictures(tmp_path, small):
    draw_folder(tmp_path / "data")
    small.update(data="folder", root=str(tmp_path / "data"), data_options={})
    return small


@pytest.mark.parametrize(("factor", "what"), [(math.nan, "the loss is nan"), (1e12, r"the gradient norm is \S+e\+\d+")])
def test_a_broken_step_stops_the_run(tmp_path, pictures, monkeypatch, factor, what):
    spoilt(monkeypatch, {4}, factor)
    with pytest.raises(ValueError, match=f"step 5: {what}, with .*--broken-steps skip") as error:
        train(out=tmp_path / "run", **pictures)
    line, path = one_line(error), tmp_path / "run/broken/step-5.pt"
    kept = torch.load(path, weights_only=True)
    assert kept["step"] == 5
    assert len(kept["files"]) == 2
    assert f"with {', '.join(kept['files'])}; that batch is kept in {path}: lower --rate" in line
    assert all(file.startswith(str(tmp_path / "data/images/train/")) for file in kept["files"])
    ((batch,),) = kept["parts"]
    assert batch["image"].shape == (2, 3, 48, 64)
    assert batch["label"].shape == (2, 48, 64)
    monkeypatch.undo()
    assert (
        train(resume=tmp_path / "run", progress=False).step == 6
    )  # from step 3, and nothing was wrong with the images


@pytest.mark.parametrize("options", [{}, {"accumulate": 2, "ema": 0.9}], ids=["plain", "accumulated"])
def test_a_skipped_step_leaves_everything_as_it_was(tmp_path, pictures, monkeypatch, capsys, options):
    pictures.update(val_split="none", val_every=1, optimizer="adamw", broken_steps="skip", **options)
    pictures.update(progress=True, rate=1e-3)
    last = 2 * options.get("accumulate", 1) - 1  # batch of the second step
    spoilt(monkeypatch, {last})
    found: dict[int, Any] = {}
    original = soundness.Soundness.on_train_batch_end

    def look(self, trainer, module, outputs, batch, index) -> None:
        original(self, trainer, module, outputs, batch, index)
        if (index + 1) % trainer.accumulate_grad_batches:
            return
        optimizer = {n: dict(s) for n, s in trainer.optimizers[0].state_dict()["state"].items()}
        state = {name: value.clone() for name, value in module.model.state_dict().items()}
        found[trainer.global_step] = state, {n: {m: v.clone() for m, v in s.items()} for n, s in optimizer.items()}

    monkeypatch.setattr(soundness.Soundness, "on_train_batch_end", look)
    done = train(out=tmp_path / "run", **pictures)
    assert done.step == 6
    assert same(found[1][0], found[2][0])
    assert all(same(found[1][1][number], found[2][1][number]) for number in found[1][1])
    assert not same(found[2][0], found[3][0])
    assert all(torch.isfinite(value).all() for value in raw(done.folder).values())
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.endswith(": skipped")]
    assert line.startswith("step 2: the loss is nan, with ")
    assert line.endswith(f"; that batch is kept in {tmp_path / 'run/broken/step-2.pt'}: skipped")
    with (done.folder / "metrics.csv").open() as file:
        assert all(math.isfinite(float(row["loss"])) for row in csv.DictReader(file))


def test_a_run_of_broken_steps_ends(tmp_path, pictures, monkeypatch, capsys):
    monkeypatch.setattr(soundness, "SKIPPED_STEPS", 3)
    monkeypatch.setattr(soundness, "KEPT", 1)
    spoilt(monkeypatch, range(1, 6))
    with pytest.raises(ValueError, match=r"step 4: the loss is nan.*; 3 such steps in a row: lower --rate") as error:
        train(out=tmp_path / "run", **pictures, broken_steps="skip", val_split="none")
    one_line(error)
    assert [path.name for path in (tmp_path / "run/broken").iterdir()] == ["step-2.pt"]


def test_kept_batches_are_in_nobodys_way(tmp_path, pictures, monkeypatch):
    """The first step is broken: nothing is left but its batch, and the next run may have the folder."""
    spoilt(monkeypatch, {0})
    with pytest.raises(ValueError, match="step 1: the loss is nan") as error:
        train(out=tmp_path / "run", **pictures)
    one_line(error)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["broken"]
    monkeypatch.undo()
    assert train(out=tmp_path / "run", **{**pictures, "steps": 1, "val_split": "none"}).step == 1
    assert (tmp_path / "run/broken/step-1.pt").is_file()
