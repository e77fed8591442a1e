"""train(): what it leaves behind, that it repeats exactly, and that its mistakes are one line."""

from __future__ import annotations

import csv
from typing import Any

import pytest
import torch
from PIL import Image
from stored_runs import Interrupted, checkpoint, draw_folder, interrupt, one_line, same, weights

import nonlocalseg as nls
from nonlocalseg.training import callbacks, progress
from nonlocalseg.training.module import SegmentationTraining
from nonlocalseg.training.runs import train


def test_run_folder(run):
    done = run()
    assert sorted(p.name for p in done.folder.iterdir()) == [
        "best",
        "checkpoints",
        "curves.png",
        "last",
        "metrics.csv",
        "recipe.yaml",
        "tensorboard",
    ]
    assert {p.name for p in (done.folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt", "previous.ckpt"}
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


def test_best_and_last_are_the_models_of_their_checkpoints(run):
    done = run(ema=0.9)
    for name in ("best", "last"):
        expected = {
            f"model.{key}": value for key, value in nls.from_pretrained(done.folder / name).state_dict().items()
        }
        assert same(weights(done.folder, name), expected)


def test_the_screen_tells_how_it_goes(run, capsys, monkeypatch):
    """The loss from the first step on, how long it will take, and at the end every class."""
    monkeypatch.setattr(progress, "MEASURED", 3)
    done = run(progress=True)
    text = capsys.readouterr().out
    assert "step 1/6  loss" in text
    assert "measured over 3 steps: about 0:00:0" in text
    assert "IoU in per cent at step" in text
    assert "sky" in text
    assert str(done.folder / "best") in text.replace("\n", "")


def test_an_early_checkpoint(run, tmp_path, monkeypatch):
    """Before the first validation, so that little is lost."""
    monkeypatch.setattr(callbacks, "EARLY", 2)
    with interrupt(monkeypatch, 3).context() as _, pytest.raises(Interrupted, match="here"):
        run("validated", val_every=5)
    with pytest.raises(Interrupted, match="here"):
        run("unvalidated", val_every=5, val_split="none")
    for name in ("validated", "unvalidated"):
        assert checkpoint(tmp_path / name)["global_step"] == 2
        assert nls.from_pretrained(tmp_path / name / "last").num_classes == 9


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


def test_recipe_yaml_repeats_the_run(run, tmp_path):
    first = run("first", ema=0.9, terms={"dice": 0.5}, class_weights=[1.0] * 9)
    again = train(first.folder / "recipe.yaml", out=tmp_path / "again", progress=False)
    assert same(weights(first.folder), weights(again.folder))
    assert (first.folder / "recipe.yaml").read_text() == (again.folder / "recipe.yaml").read_text()


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


@pytest.mark.parametrize("workers", [0, 2])
def test_corrupt_image_is_named(tmp_path, small, workers):
    draw_folder(tmp_path / "data")
    (tmp_path / "data/images/train/2.png").write_bytes(b"not a picture")
    small.update(data="folder", root=str(tmp_path / "data"), data_options={}, workers=workers)
    with pytest.raises(ValueError, match=r"2\.png") as error:
        train(out=tmp_path / "run", **small)
    one_line(error)


@pytest.mark.parametrize("place", ["data/images/train/1.png", "data/images/train", "data"])
def test_data_that_vanish_are_named_and_the_run_goes_on_when_they_are_back(tmp_path, small, monkeypatch, place):
    """A file that somebody removes, a folder that is unmounted."""
    draw_folder(tmp_path / "data")
    small.update(data="folder", root=str(tmp_path / "data"), data_options={}, val_split="none")
    whole = train(out=tmp_path / "whole", **small)
    original = SegmentationTraining.on_train_batch_start

    def vanish(self: SegmentationTraining, batch: Any, index: int) -> None:
        if index == 3:
            (tmp_path / place).rename(tmp_path / "elsewhere")
        original(self, batch, index)

    monkeypatch.setattr(SegmentationTraining, "on_train_batch_start", vanish)
    with pytest.raises((ValueError, OSError), match=r"data/(images|masks)/train/\d\.png") as error:
        train(out=tmp_path / "run", **small)
    one_line(error)
    monkeypatch.undo()
    (tmp_path / "elsewhere").rename(tmp_path / place)
    resumed = train(resume=tmp_path / "run", progress=False)
    assert same(weights(whole.folder), weights(resumed.folder))


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


def test_heads_for_the_stages_are_attached_to_a_trained_model(tmp_path, small):
    """GALD, Fig. 8."""
    network = {"channels": 16, "key_channels": 8, "auxiliary_channels": 16, "aggregate_stride": 1}
    small.update(model="galdv1", model_options=network, val_split="none", steps=1)
    old = train(out=tmp_path / "old", **small)
    del small["model"], small["backbone"], small["model_options"]
    small.update(rate=1e-12, frozen_batchnorm=True)
    new = train(out=tmp_path / "new", init_from=str(old.folder), model_options={"stage_heads": True}, **small)
    before, after = old.model.state_dict(), new.model.state_dict()
    assert {name.split(".")[2] for name in after.keys() - before.keys()} == {"fcn", "ga", "gald"}
    assert all(torch.allclose(before[name].float(), after[name].float(), atol=1e-6) for name in before)
    fcn = nls.create_model("fcn", "mobilenetv2_035", num_classes=9, channels=8, auxiliary_channels=8)
    fcn.save_pretrained(tmp_path / "fcn")
    with pytest.raises(ValueError, match="stage_heads") as error:
        train(out=tmp_path / "no", init_from=str(tmp_path / "fcn"), model_options={"stage_heads": True}, **small)
    one_line(error)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"crop": (-8, 64)}, "crop: -8; give 16 or more"),
        ({"batch_size": 3, "accumulate": 2}, "multiple of 2"),
        ({"backbone": "resnet1"}, "resnet1"),
        ({"precision": "bf16", "channels_last": True}, "channels_last"),
        ({"data": "camvid", "data_options": {}}, "root"),
        ({"data": "cityscape"}, "did you mean 'cityscapes'"),
        ({"class_weights": (1.0, 2.0)}, "2 numbers for 9 classes"),
        ({"data_options": {"lenght": 3}}, "'lenght': did you mean 'length'"),
        ({"model_options": {"chanels": 3}}, "'chanels': did you mean 'channels'"),
        ({"init_from": "nowhere", "model": None}, "nowhere"),
        ({"stepz": 3}, "unknown training option 'stepz': did you mean 'steps'"),
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
