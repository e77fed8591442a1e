"""train(): what it leaves behind, that it repeats and resumes exactly, and that its mistakes are one line."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

import nonlocalseg as nls
from nonlocalseg.training import running
from nonlocalseg.training.fitting import fit_phase, save_memory, start_model
from nonlocalseg.training.module import SegmentationTraining
from nonlocalseg.training.options import Plan, resolve
from nonlocalseg.training.recipes import Phase
from nonlocalseg.training.running import train


class Interrupted(Exception):
    pass


def weights(folder: Path, name: str = "last") -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def interrupt(monkeypatch: pytest.MonkeyPatch, batch: int) -> pytest.MonkeyPatch:
    original = SegmentationTraining.on_train_batch_start

    def stop(self: SegmentationTraining, images: Any, index: int) -> None:
        if index == batch:
            raise Interrupted
        original(self, images, index)

    monkeypatch.setattr(SegmentationTraining, "on_train_batch_start", stop)
    return monkeypatch


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert message
    assert "\n" not in message
    return message


def test_run_folder(run):
    done = run()
    assert sorted(p.name for p in done.folder.iterdir()) == [
        "checkpoints",
        "metrics.csv",
        "model",
        "recipe.yaml",
        "tensorboard",
    ]
    assert {p.name for p in (done.folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    with (done.folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    validated = [row for row in rows if row["miou"]]
    assert [int(row["step"]) for row in validated] == [3, 6]
    assert done.miou == pytest.approx(max(float(row["miou"]) for row in validated), rel=1e-5)
    assert float(validated[0]["iou/sky"]) >= 0
    assert any(float(row["loss"]) > 0 and float(row["images_per_second"]) > 0 for row in rows if row["loss"])
    assert float(rows[-2]["rate"]) == pytest.approx(1e-3 * (1 / 6) ** 0.9, rel=1e-4)  # of the last step that was done
    assert done.step == 6
    assert nls.from_pretrained(done.folder).classes == done.model.classes
    assert any((done.folder / "tensorboard").iterdir())


def test_last_step_is_validated_whatever_the_interval(run):
    done = run(steps=5)
    with (done.folder / "metrics.csv").open() as file:
        assert [int(row["step"]) for row in csv.DictReader(file) if row["miou"]] == [3, 5]


def test_saved_model_is_the_best_one(run, monkeypatch):
    """A later, worse validation must not replace it."""
    from nonlocalseg.metrics import Scores

    scores, seen = iter([0.5, 0.25]), {}

    def fixed(self: Scores) -> float:
        if id(self.confusion) not in seen:
            seen[id(self.confusion)] = next(scores), self.confusion  # kept, so that no other takes its id
        return seen[id(self.confusion)][0]

    monkeypatch.setattr(Scores, "mean_iou", property(fixed))
    done = run()
    assert done.miou == 0.5
    saved, best, last = done.model.state_dict(), weights(done.folder, "best"), weights(done.folder)
    assert all(torch.equal(saved[name], best[f"model.{name}"]) for name in saved)
    assert not same(best, last)


@pytest.mark.parametrize("options", [{}, {"workers": 2}, {"accumulate": 2}], ids=["plain", "workers", "accumulate"])
def test_two_runs_give_the_same_weights(run, options):
    first, second = run("first", **options), run("second", **{**options, "workers": 1})
    assert same(weights(first.folder), weights(second.folder))


def test_seed_changes_the_weights(run):
    assert not same(weights(run("first").folder), weights(run("second", seed=1).folder))


@pytest.mark.parametrize(
    ("options", "batch"),
    [
        ({}, 4),
        ({"ema": 0.9, "optimizer": "adamw", "workers": 1}, 5),
        ({"accumulate": 2}, 9),
        ({"val_split": "none"}, 4),
        ({"steps": 5, "warmup_steps": 3}, 4),
    ],
    ids=["plain", "ema", "accumulate", "no validation", "uneven"],
)
def test_resumed_run_equals_uninterrupted_run(run, tmp_path, monkeypatch, options, batch):
    whole = run("whole", **options)
    with interrupt(monkeypatch, batch).context() as _, pytest.raises(Interrupted):
        run("broken", **options)
    assert torch.load(tmp_path / "broken/checkpoints/last.ckpt", weights_only=True)["global_step"] == 3
    monkeypatch.undo()
    resumed = train(resume=tmp_path / "broken", progress=False)
    assert same(weights(whole.folder), weights(resumed.folder))
    assert resumed.miou == whole.miou
    rows = [(folder / "metrics.csv").read_text().splitlines() for folder in (whole.folder, resumed.folder)]
    assert [line.split(",")[0] for line in rows[0]] == [line.split(",")[0] for line in rows[1]]


def test_recipe_yaml_repeats_the_run(run, tmp_path):
    first = run("first", ema=0.9, terms={"dice": 0.5}, class_weights=[1.0] * 9)
    again = train(first.folder / "recipe.yaml", out=tmp_path / "again", progress=False)
    assert same(weights(first.folder), weights(again.folder))
    assert (first.folder / "recipe.yaml").read_text() == (again.folder / "recipe.yaml").read_text()


def test_average_is_validated_and_saved(run):
    done = run(ema=0.9)
    last = weights(done.folder)
    name = "head.classifier.weight"
    assert not torch.equal(last[f"model.{name}"], last[f"ema.module.{name}"])
    best = weights(done.folder, "best")
    assert torch.equal(done.model.state_dict()[name], best[f"ema.module.{name}"])


def test_init_from_keeps_weights_and_makes_new_classifiers(run, tmp_path, small):
    old = run("old", val_split="none", steps=2)
    folder = tmp_path / "data"
    draw_folder(folder)
    small.update(
        data="folder", root=str(folder), data_options={}, steps=1, rate=1e-12, val_split="none", frozen_batchnorm=True
    )
    del small["model"], small["backbone"], small["model_options"]
    new = train(init_from=str(old.folder), out=tmp_path / "new", **small)
    assert new.model.classes == ("left", "right")
    before, after = old.model.state_dict(), new.model.state_dict()
    assert torch.equal(before["backbone.body.conv_stem.weight"], after["backbone.body.conv_stem.weight"])
    assert after["head.classifier.weight"].shape[0] == 2
    with pytest.raises(ValueError, match="leave out --model") as error:
        train(init_from=str(old.folder), out=tmp_path / "other", **small, model="fcn")
    one_line(error)
    with pytest.raises(ValueError, match="has channels 16, not 32: leave out channels") as error:
        train(init_from=str(old.folder), out=tmp_path / "other", **small, model_options={"channels": 32})
    one_line(error)


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


def draw_folder(folder: Path, count: int = 4) -> None:
    """A `folder` data set of two classes."""
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            pixels = np.random.default_rng(index).integers(0, 256, (48, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / split / f"{index}.png")
            mask = np.zeros((48, 64), np.uint8)
            mask[:, 32:] = 1
            Image.fromarray(mask).save(folder / "masks" / split / f"{index}.png")
    (folder / "classes.yaml").write_text("masks: {0: left, 1: right}\n")


@pytest.mark.parametrize("workers", [0, 2])
def test_corrupt_image_is_named(tmp_path, small, workers):
    draw_folder(tmp_path / "data")
    (tmp_path / "data/images/train/2.png").write_bytes(b"not a picture")
    small.update(data="folder", root=str(tmp_path / "data"), data_options={}, workers=workers)
    with pytest.raises(ValueError, match=r"2\.png") as error:
        train(out=tmp_path / "run", **small)
    one_line(error)


def test_resume_with_other_classes(run, tmp_path):
    done = run(steps=2)
    draw_folder(tmp_path / "data")
    with pytest.raises(ValueError, match="9 classes and the data has 2") as error:
        train(resume=done.folder, data="folder", root=str(tmp_path / "data"), data_options={}, steps=4, progress=False)
    one_line(error)


def test_resume_with_another_optimizer(run):
    done = run(steps=2, val_split="none")
    with pytest.raises(ValueError, match="holds the state of sgd, which adamw cannot go on from") as error:
        train(resume=done.folder, optimizer="adamw", steps=4, progress=False)
    one_line(error)


def test_resumed_run_that_cannot_begin_keeps_its_recipe(tmp_path, small):
    draw_folder(tmp_path / "data")
    small.update(data="folder", root=str(tmp_path / "data"), data_options={}, steps=1, val_split="none")
    folder = train(out=tmp_path / "run", **small).folder
    before = (folder / "recipe.yaml").read_text()
    for path in (tmp_path / "data/images/val").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="no partner") as error:
        train(resume=folder, val_split="val", steps=2, rate=0.5, progress=False)
    one_line(error)
    assert (folder / "recipe.yaml").read_text() == before
    train(resume=folder, steps=2, rate=0.5, progress=False)
    assert "rate: 0.5" in (folder / "recipe.yaml").read_text()


@pytest.mark.parametrize("option", ["split", "val_split"])
def test_split_without_labels(tmp_path, small, option):
    draw_folder(tmp_path / "data")
    (tmp_path / "data/images/test").mkdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "data/images/test/a.png")
    small.update(data="folder", root=str(tmp_path / "data"), data_options={}, **{option: "test"})
    with pytest.raises(ValueError, match="the split 'test' has no labels to") as error:
        train(out=tmp_path / "run", **small)
    one_line(error)
    assert not (tmp_path / "run").exists()


def test_synchronised_batch_norm_computes_the_same_on_one_device(run, tmp_path, small):
    """MobileNet's activations are part of its norms, where they are easily lost."""
    small.pop("progress")
    done = run("plain", steps=1, val_split="none")
    plan = resolve(None, {**small, "steps": 1, "val_split": "none", "sync_batchnorm": True})
    model = start_model(plan, plan.phases[0], None)
    fit_phase(plan, 0, model, tmp_path / "synchronised", None, Console(quiet=True))
    assert any(isinstance(module, torch.nn.SyncBatchNorm) for module in model.modules())
    first, second = weights(done.folder), weights(tmp_path / "synchronised")
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("gpus", "expected"), [(0, False), (1, False), (8, True)])
def test_batch_norm_is_synchronised_where_there_are_several_gpus(monkeypatch, gpus, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert running._on_this_machine(Plan(phases=(Phase(data="synthetic"),))).sync_batchnorm is expected


def test_resume_from_a_corrupt_checkpoint(run):
    done = run(steps=2)
    path = done.folder / "checkpoints/last.ckpt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="corrupt") as error:
        train(resume=done.folder, steps=4, progress=False)
    one_line(error)


def test_resume_continues_a_finished_run(run):
    done = run(steps=2)
    assert train(resume=done.folder, steps=4, progress=False).step == 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"crop": (-8, 64)}, "crop"),
        ({"steps": 0}, "steps"),
        ({"batch_size": 3, "accumulate": 2}, "multiple of 2"),
        ({"backbone": "resnet1"}, "resnet1"),
        ({"precision": "bf16", "channels_last": True}, "channels_last"),
        ({"precision": "8"}, "precision"),
        ({"data": "camvid", "data_options": {}}, "root"),
        ({"data": "cityscape"}, "synthetic"),
        ({"flip": 2.0}, "flip"),
        ({"val_split": "vall"}, "no split 'vall'; choose from train, val, test, or none"),
        ({"class_weights": (1.0, 2.0)}, "2 numbers for 9 classes"),
        ({"data_options": {"lenght": 3}}, "no option 'lenght'; it has length, seed, size"),
        ({"init_from": "nowhere", "model": None}, "nowhere"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_mistakes_are_one_line(tmp_path, small, options, words):
    if torch.cuda.is_available() and "channels_last" in options:
        pytest.skip("allowed on a GPU")
    with pytest.raises((ValueError, OSError), match=words) as error:
        train(out=tmp_path / "run", **{**small, **options})
    one_line(error)
    assert not (tmp_path / "run").exists()


def test_folder_of_another_run_is_not_touched(run, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="--resume") as error:
        run()
    one_line(error)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_unwritable_output(tmp_path, small):
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(OSError):
        train(out=tmp_path / "closed/run", **small)


def test_output_below_a_file(tmp_path, small):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises((OSError, ValueError)) as error:
            train(out=out, **small)
        one_line(error)


def test_fresh_names(tmp_path, small, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small.update(steps=1, val_split="none")
    names = [train(**small).folder.as_posix() for _ in range(2)]
    assert names == ["runs/synthetic-ann-mobilenetv2_035", "runs/synthetic-ann-mobilenetv2_035-2"]


def test_broken_gradient_stops_the_run(run, monkeypatch):
    original = SegmentationTraining.training_step

    def broken(self: SegmentationTraining, batch: Any, index: int) -> dict[str, torch.Tensor]:
        outputs = original(self, batch, index)
        return {name: value * (1e20 if index == 1 else 1.0) for name, value in outputs.items()}

    monkeypatch.setattr(SegmentationTraining, "training_step", broken)
    with pytest.raises(ValueError, match="gradient norm at step 1 is") as error:
        run()
    one_line(error)


def test_phases_follow_each_other(tmp_path, small, run, monkeypatch):
    """A second phase on other data keeps the weights, gets its own classifiers, and resumes where it stopped."""
    import yaml

    draw_folder(tmp_path / "data")
    first = run("first", steps=2)
    fields = yaml.safe_load((first.folder / "recipe.yaml").read_text())
    second = {**fields["phases"][0], "data": "folder", "root": str(tmp_path / "data"), "data_options": {}, "steps": 3}
    second["val_every"] = 1
    fields["phases"].append(second)
    recipe = tmp_path / "two.yaml"
    recipe.write_text(yaml.safe_dump(fields))
    with interrupt(monkeypatch, 2).context() as _, pytest.raises(Interrupted):  # the first phase has no batch 2
        train(recipe, out=tmp_path / "two", progress=False)
    monkeypatch.undo()
    assert torch.load(tmp_path / "two/phase-2/checkpoints/last.ckpt", weights_only=True)["global_step"] == 2
    written = (tmp_path / "two/phase-1/last/model.safetensors").stat().st_mtime_ns
    done = train(resume=tmp_path / "two", progress=False)
    assert (done.model.classes, done.step) == (("left", "right"), 3)
    assert (tmp_path / "two/phase-1/last/config.json").is_file()
    assert nls.from_pretrained(tmp_path / "two").classes == ("left", "right")
    assert same(weights(first.folder), weights(tmp_path / "two/phase-1"))
    assert (tmp_path / "two/phase-1/last/model.safetensors").stat().st_mtime_ns == written


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path, small):
    """The same images per step, batch norm apart, give the same weights on two devices as on one."""
    details = {"dropout": 0.0, "auxiliary_dropout": 0.0, "channels": 16, "auxiliary_channels": 16}
    small.update(model="fcn", model_options=details, scale=(1.0, 1.0), ohem=False, frozen_batchnorm=True, ema=0.9)
    small.update(steps=2, val_every=1)  # rounding grows with every step
    one = train(out=tmp_path / "one", **small, devices=1)
    options = small | {"devices": 2, "out": str(tmp_path / "two")}
    script = tmp_path / "script.py"
    script.write_text(f"from nonlocalseg.training.running import train\ntrain(**{options!r})\n")
    subprocess.run([sys.executable, script], check=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})
    first, second = weights(one.folder), weights(tmp_path / "two")
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-3, atol=1e-5)
    columns = [list(csv.DictReader((tmp_path / name / "metrics.csv").open())) for name in ("one", "two")]
    assert float(columns[0][-1]["miou"]) == pytest.approx(float(columns[1][-1]["miou"]), abs=1e-4)
