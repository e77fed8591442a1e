"""What `evaluate` prints and writes, and how it compares two models."""

from __future__ import annotations

import csv
import json
import shutil

import pytest
from tiny_runs import CLASSES

from nonlocalseg.cli import main
from nonlocalseg.evaluation import scoring
from nonlocalseg.models.creation import create_model


def test_evaluate(capsys, trained, tmp_path):
    root, run = trained
    assert main(["evaluate", str(run), "--root", str(root), "--out", str(tmp_path), "--workers", "0", "--flip"]) == 0
    shown = capsys.readouterr().out
    report = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert report["settings"]["view"]["flip"] is True
    for name in ("mIoU", "mean accuracy", "pixel accuracy", *CLASSES):
        assert name in shown
    assert f"mIoU            {100 * report['mean_iou']:.2f} %" in shown
    with next(path for path in tmp_path.glob("*.csv") if "images" not in path.name).open() as file:
        assert [row["class"] for row in csv.DictReader(file)] == list(CLASSES)


def test_a_run_alone_is_measured_on_its_own_data_in_its_own_view(capsys, trained, tmp_path, monkeypatch):
    run = shutil.copytree(trained[1], tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "run", "--workers", "0"]) == 0
    shown = capsys.readouterr().out
    assert f"measured on     folder, val in {trained[0]}\n" in shown
    assert "seen as         whole images, one scale\n" in shown
    config = json.loads((run / "best/config.json").read_text())
    config["view"] |= {"flip": True}
    (run / "best/config.json").write_text(json.dumps(config))
    assert main(["evaluate", "run", "--workers", "0", "--split", "train"]) == 0
    shown = capsys.readouterr().out
    assert f"measured on     folder, train in {trained[0]}\n" in shown
    assert "seen as         whole images, one scale, mirrored as well\n" in shown
    assert len(list((run / "evaluation").glob("*.json"))) == 2
    assert main(["evaluate", "run", "--workers", "0", "--no-flip"]) == 0  # the first again
    assert len(list((run / "evaluation").glob("*.json"))) == 2


def test_a_run_without_validation_asks_for_a_split(trained, mistake, tmp_path):
    run = shutil.copytree(trained[1], tmp_path / "run")
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("val_split: val", "val_split: null"))
    assert f"--split: {run} was trained without validation" in mistake("evaluate", run)
    recipe.write_text("phases: 3")
    assert "recipe.yaml is no recipe.yaml" in mistake("evaluate", run)


def test_all_models_are_checked_before_the_first_is_measured(trained, mistake, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "evaluate", lambda *_, **__: pytest.fail("measured"))
    root, run = trained
    other = create_model("fcn", "test_resnet.r160_in1k", num_classes=3, channels=8, auxiliary_channels=8)
    other.save_pretrained(tmp_path / "other")
    here = ("--data", "folder", "--root", root)
    assert "nowhere" in mistake("evaluate", run, tmp_path / "nowhere", *here)
    assert "predicts 3 classes and folder has 2" in mistake("evaluate", run, tmp_path / "other", *here, "--compare")
    moved = shutil.copytree(root, tmp_path / "moved")
    second = shutil.copytree(run, tmp_path / "second")
    text = (second / "recipe.yaml").read_text()
    (second / "recipe.yaml").write_text(text.replace(str(root), str(moved)))
    line = mistake("evaluate", run, second, "--compare")
    assert f"other data (folder, val in {root}; folder, val in {moved})" in line


def test_evaluate_compares_two_models(capsys, trained, mistake, tmp_path):
    root, run = trained
    here = ["--root", str(root), "--workers", "0", "--boundary"]
    assert main(["evaluate", str(run), *here, "--out", str(tmp_path / "one")]) == 0
    shown = capsys.readouterr().out
    for words in ("boundary F within", " px", "Boundary IoU", "worst images", "fwIoU"):
        assert words in shown
    stored = str(next((tmp_path / "one").glob("*.json")))
    command = ["evaluate", stored, str(run), *here, "--setting", "ann-ade20k", "--compare"]
    assert main([*command, "--out", str(tmp_path / "two")]) == 0
    shown = capsys.readouterr().out
    assert "95 % interval" in shown
    (path,) = (tmp_path / "two/run").glob("folder-val-ann-ade20k-*-run-comparison.json")
    written = json.loads(path.read_text())
    assert written["first"]["view"]["scales"] == [1.0]
    assert len(written["second"]["view"]["scales"]) == 6
    assert [row["class"] for row in written["classes"]] == list(CLASSES)
    assert "--compare takes two models; 1 given" in mistake("evaluate", stored, "--compare")
    words = ["evaluate", stored, run, "--root", root, "--split", "train", "--compare"]
    assert "the two evaluations are of other images" in mistake(*words)
    assert "no such evaluation" in mistake("evaluate", f"{tmp_path}/none.json", stored, "--compare")
