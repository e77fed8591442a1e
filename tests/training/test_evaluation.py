"""evaluate(): the right numbers at the label's own size, the files, and refusals in one line."""

from __future__ import annotations

import csv
import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nonlocalseg as nls
from nonlocalseg.data.synthetic import Synthetic
from nonlocalseg.training.running import evaluate

OPTIONS: dict[str, Any] = {"data_options": {"size": [48, 96], "length": 3}, "progress": False, "workers": 0}


class Answer(nn.Module):
    """Knows the labels of the three scenes, and gets every pixel of one class wrong."""

    align_corners = False
    classes = Synthetic.classes
    num_classes = len(classes)

    def __init__(self, wrong: int | None = None) -> None:
        super().__init__()
        scenes = Synthetic(None, "val", size=(48, 96), length=3)
        self.known = [
            (torch.from_numpy(image), torch.from_numpy(label).long()) for image, label in map(scenes.read, range(3))
        ]
        self.wrong = wrong

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        pixels = (images[0] * 255).round().permute(1, 2, 0)
        label = next(label for image, label in self.known if torch.equal(image.float(), pixels)).clone()
        if self.wrong is not None:
            label[label == self.wrong] = (self.wrong + 1) % self.num_classes
        return {"out": nn.functional.one_hot(label, self.num_classes).permute(2, 0, 1)[None].float()}


def test_perfect_and_imperfect_answers():
    perfect = evaluate(Answer(), "synthetic", **OPTIONS)
    assert perfect.scores.mean_iou == 1
    assert perfect.interval == (1, 1)
    assert [row["pixel_accuracy"] for row in perfect.images] == [1, 1, 1]
    flawed = evaluate(Answer(wrong=1), "synthetic", **OPTIONS)
    assert flawed.scores.iou[1] == 0
    assert flawed.scores.iou[0] == 1
    assert flawed.confusion.sum() == 3 * 48 * 96
    assert flawed.counts[:, 1, 2].sum() == flawed.confusion[1].sum()  # every pixel of class 1 is missed
    assert torch.equal(flawed.counts[:, 2, 1].sum(), flawed.confusion[1, 2])  # and counted as class 2


def test_files(tmp_path):
    result = evaluate(Answer(wrong=1), "synthetic", out=tmp_path, **OPTIONS)
    report = json.loads((tmp_path / "synthetic-val-whole.json").read_text())
    assert report["mean_iou"] == pytest.approx(result.scores.mean_iou)
    assert report["settings"]["split"] == "val"
    assert torch.equal(torch.tensor(report["confusion"]), result.confusion)
    with (tmp_path / "synthetic-val-whole.csv").open() as file:
        rows = {row["class"]: row for row in csv.DictReader(file)}
    assert list(rows) == list(Synthetic.classes)
    assert float(rows["ground"]["iou"]) == 0
    with (tmp_path / "synthetic-val-whole-images.csv").open() as file:
        assert [row["name"] for row in csv.DictReader(file)] == ["val_00000", "val_00001", "val_00002"]


def test_settings_reach_inference():
    model = nls.create_model("fcn", "mobilenetv2_035", classes=Synthetic.classes, channels=8, auxiliary_channels=8)
    whole = evaluate(model, "synthetic", **OPTIONS).confusion
    for options in ({"mode": "slide", "crop": 32}, {"flip": True}, {"scales": (0.75, 1.5)}, {"split": "test"}):
        assert not torch.equal(evaluate(model, "synthetic", **OPTIONS, **options).confusion, whole), options
    assert model.training  # left as it was


def test_refusals(tmp_path):
    model = nls.create_model("fcn", "mobilenetv2_035", num_classes=3)
    other = nls.create_model("fcn", "mobilenetv2_035", classes=Synthetic.classes[::-1])
    for call, words in (
        (lambda: evaluate(model, "synthetic", **OPTIONS), "3 classes and synthetic has 9"),
        (lambda: evaluate(other, "synthetic", **OPTIONS), "order"),
        (lambda: evaluate(tmp_path / "nowhere", "synthetic", **OPTIONS), "nowhere"),
        (lambda: evaluate(Answer(), "synthetic", mode="slide", **OPTIONS), "crop"),
        (lambda: evaluate(Answer(), "nothing", **OPTIONS), "nothing"),
    ):
        with pytest.raises((ValueError, OSError), match=words) as error:
            call()
        assert "\n" not in str(error.value)


def test_training_validates_the_same(run):
    """Validation inside training and `evaluate` are two paths to one number."""
    done = run()
    result = evaluate(done.folder, "synthetic", **{**OPTIONS, "data_options": {"size": [48, 96], "length": 6}})
    assert result.scores.mean_iou == pytest.approx(done.miou, abs=1e-6)
    assert len(result.images) == 6
