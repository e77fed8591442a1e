"""Resumed runs: bit for bit as without the interruption, and what cannot be gone on from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from stored_runs import Interrupted, checkpoint, draw_folder, interrupt, one_line, raw, rows_of, same, weights

import nonlocalseg as nls
from nonlocalseg.training import history
from nonlocalseg.training.runs import train


@pytest.mark.parametrize(
    ("options", "batch"),
    [
        ({}, 4),
        ({"ema": 0.9, "optimizer": "adamw", "workers": 1}, 5),
        ({"accumulate": 2}, 9),
        ({"val_split": "none"}, 4),
        ({"val_split": "none", "ema": 0.9, "accumulate": 2}, 9),
        ({"steps": 5, "warmup_steps": 3}, 4),
    ],
    ids=["plain", "ema", "accumulate", "no validation", "ema without validation", "uneven"],
)
def test_resumed_run_equals_uninterrupted_run(run, tmp_path, monkeypatch, options, batch):
    whole = run("whole", **options)
    with interrupt(monkeypatch, batch).context() as _, pytest.raises(Interrupted, match="here"):
        run("broken", **options)
    assert checkpoint(tmp_path / "broken")["global_step"] == 3
    monkeypatch.undo()
    resumed = train(resume=tmp_path / "broken", progress=False)
    assert same(weights(whole.folder), weights(resumed.folder))
    assert same(raw(whole.folder), raw(resumed.folder))
    assert same(whole.model.state_dict(), resumed.model.state_dict())
    assert resumed.miou == whole.miou
    assert rows_of(whole.folder) == rows_of(resumed.folder)


def test_finished_run_with_an_average_stays_as_it_is(run):
    done = run(ema=0.9, steps=3, val_every=3)
    again = train(resume=done.folder, progress=False)
    assert same(done.model.state_dict(), again.model.state_dict())
    with pytest.raises(ValueError, match=r"was begun with ema True, where recipe\.yaml has False"):
        resumed_without_average(done.folder)


def resumed_without_average(folder: Path) -> None:
    text = (folder / "recipe.yaml").read_text()
    assert "ema: 0.9" in text
    (folder / "recipe.yaml").write_text(text.replace("ema: 0.9", "ema: null"))
    train(resume=folder, steps=6, progress=False)


def test_resume_with_other_classes(run, tmp_path):
    done = run(steps=2)
    draw_folder(tmp_path / "data")
    with pytest.raises(ValueError, match="9 classes and the data has 2") as error:
        train(resume=done.folder, data="folder", root=str(tmp_path / "data"), data_options={}, steps=4, progress=False)
    one_line(error)


def test_resume_with_another_optimizer(run):
    done = run(steps=2, val_split="none")
    with pytest.raises(
        ValueError, match=r"--optimizer: .* was begun with sgd, and a resumed run cannot change that"
    ) as error:
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


def test_resume_takes_no_recipe_and_no_folder(tmp_path):
    for others in ({"recipe": "synthetic/ann-resnet10t"}, {"out": tmp_path}):
        with pytest.raises(ValueError, match="leave out the recipe and --out"):
            train(**others, resume=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"recipe\.yaml does not exist"):
        train(resume=tmp_path)


def test_rows_after_an_interruption_are_those_of_a_whole_run(run, tmp_path, monkeypatch):
    """The loss is a mean since the row before, which may lie before the checkpoint."""
    options = {"steps": 14, "val_every": 5, "val_split": "none"}
    monkeypatch.setattr(history, "LOG_EVERY", 4)
    whole = run("whole", **options)
    with interrupt(monkeypatch, 11).context() as _, pytest.raises(Interrupted, match="here"):
        run("broken", **options)
    monkeypatch.undo()
    monkeypatch.setattr(history, "LOG_EVERY", 4)
    resumed = train(resume=tmp_path / "broken", progress=False)
    rows = rows_of(whole.folder)
    assert [row["step"] for row in rows] == ["1", "4", "8", "12", "14"]
    assert rows_of(resumed.folder) == rows
    assert same(weights(whole.folder), weights(resumed.folder))


@pytest.mark.parametrize(
    "garbage", [b"\x00\xff\xfe\n,,,\n", b"3,many\n", b'"' * 200_000, b"step\n", b"9" * 5000 + b"\n"]
)
def test_damaged_rows_do_not_keep_a_whole_checkpoint_from_going_on(run, garbage, capsys):
    done = run(steps=2)
    before = (done.folder / "metrics.csv").read_bytes()
    (done.folder / "metrics.csv").write_bytes(before + garbage)
    train(resume=done.folder, steps=3)
    assert "damaged line" in capsys.readouterr().out
    assert [row["step"] for row in rows_of(done.folder)] == ["1", "2", "2", "3", "3"]


@pytest.mark.parametrize("content", ["[", "{}x", '{"wandb": 3}', '{"nobody": "x"}'])
def test_damaged_identities_of_services_are_one_line(run, content):
    done = run(steps=1)
    (done.folder / "loggers.json").write_text(content)
    with pytest.raises(ValueError, match=r"loggers\.json is damaged: remove it") as error:
        train(resume=done.folder, steps=2, progress=False)
    one_line(error)


def test_nothing_to_resume_from(run):
    done = run(steps=1, val_split="none")
    (done.folder / "checkpoints/last.ckpt").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no checkpoints/last\.ckpt to resume from") as error:
        train(resume=done.folder, progress=False)
    one_line(error)
    assert (done.folder / "recipe.yaml").is_file()


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
    recipe.write_text(json.dumps(fields))  # is YAML, too
    with (
        interrupt(monkeypatch, 2).context() as _,
        pytest.raises(Interrupted, match="here"),
    ):  # the first phase has no batch 2
        train(recipe, out=tmp_path / "two", progress=False)
    monkeypatch.undo()
    assert checkpoint(tmp_path / "two/phase-2")["global_step"] == 2
    written = (tmp_path / "two/phase-1/last/model.safetensors").stat().st_mtime_ns
    done = train(resume=tmp_path / "two", progress=False)
    assert (done.model.classes, done.step) == (("left", "right"), 3)
    assert (tmp_path / "two/phase-1/last/config.json").is_file()
    assert nls.from_pretrained(tmp_path / "two").classes == ("left", "right")
    assert same(weights(first.folder), weights(tmp_path / "two/phase-1"))
    assert (tmp_path / "two/phase-1/last/model.safetensors").stat().st_mtime_ns == written
