"""What `evaluate` prints and writes, and how it compares two models."""

from __future__ import annotations

import csv
import json
import shutil

from tiny_runs import CLASSES

from nonlocalseg.cli import main


def test_evaluate(capsys, trained, tmp_path):
    root, run = trained
    assert main(["evaluate", str(run), "--root", str(root), "--out", str(tmp_path), "--workers", "0", "--flip"]) == 0
    shown = capsys.readouterr().out
    report = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert report["settings"]["flip"] is True
    for name in ("mIoU", "mean accuracy", "pixel accuracy", *CLASSES):
        assert name in shown
    assert f"mIoU            {100 * report['mean_iou']:.2f} %" in shown
    with next(path for path in tmp_path.glob("*.csv") if "images" not in path.name).open() as file:
        assert [row["class"] for row in csv.DictReader(file)] == list(CLASSES)


def test_evaluate_writes_beside_the_model(capsys, trained, tmp_path):
    run = shutil.copytree(trained[1], tmp_path / "run")
    assert main(["evaluate", str(run), "--root", str(trained[0]), "--workers", "0"]) == 0
    assert len(list((run / "evaluation").glob("*.json"))) == 1


def test_evaluate_compares_two_models(capsys, trained, mistake, tmp_path):
    root, run = trained
    here = ["--root", str(root), "--workers", "0", "--boundary"]
    assert main(["evaluate", str(run), *here, "--out", str(tmp_path / "one")]) == 0
    shown = capsys.readouterr().out
    for words in ("boundary F within", " px", "Boundary IoU", "worst images", "fwIoU"):
        assert words in shown
    stored = str(tmp_path / "one/folder-val-whole.json")
    command = ["evaluate", stored, str(run), *here, "--setting", "ann-ade20k", "--compare"]
    assert main([*command, "--out", str(tmp_path / "two")]) == 0
    shown = capsys.readouterr().out
    assert "95 % interval" in shown
    written = json.loads((tmp_path / "two/run/folder-val-ann-ade20k-comparison.json").read_text())
    assert written["first"]["scales"] == [1.0]
    assert len(written["second"]["scales"]) == 6
    assert [row["class"] for row in written["classes"]] == list(CLASSES)
    assert "--compare takes two models; 1 given" in mistake("evaluate", stored, "--compare")
    assert "no such evaluation" in mistake("evaluate", f"{tmp_path}/none.json", stored, "--compare")
