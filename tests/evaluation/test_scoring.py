"""evaluate(): the right numbers at the label's own size, the files, and refusals in one line."""

from __future__ import annotations

import csv
import json
import pickle
import random
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nonlocalseg import images
from nonlocalseg.boundaries import BoundaryMetric
from nonlocalseg.data.source import DataSource
from nonlocalseg.data.synthetic import Synthetic
from nonlocalseg.evaluation import scoring
from nonlocalseg.evaluation.comparison import compare
from nonlocalseg.evaluation.results import Evaluation
from nonlocalseg.evaluation.scoring import evaluate
from nonlocalseg.inference.borrowed import fingerprint
from nonlocalseg.metrics import class_counts
from nonlocalseg.models.creation import create_model
from nonlocalseg.view import VIEWS, View

OPTIONS: dict[str, Any] = {
    "data": "synthetic",
    "data_options": {"size": [48, 96], "length": 3},
    "progress": False,
    "workers": 0,
}


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
    perfect = evaluate(Answer(), **OPTIONS)
    assert perfect.scores.mean_iou == 1
    assert perfect.interval == (1, 1)
    assert [row["pixel_accuracy"] for row in perfect.images] == [1, 1, 1]
    flawed = evaluate(Answer(wrong=1), **OPTIONS)
    assert flawed.scores.iou[1] == 0
    assert flawed.scores.iou[0] == 1
    assert flawed.confusion.sum() == 3 * 48 * 96
    assert flawed.counts[:, 1, 2].sum() == flawed.confusion[1].sum()  # every pixel of class 1 is missed
    assert torch.equal(flawed.counts[:, 2, 1].sum(), flawed.confusion[1, 2])  # and counted as class 2


def test_files(tmp_path):
    result = evaluate(Answer(wrong=1), out=tmp_path, **OPTIONS)
    stem = tmp_path / result.stem
    report = json.loads(Path(f"{stem}.json").read_text())
    assert report["mean_iou"] == pytest.approx(result.scores.mean_iou)
    assert report["settings"]["source"]["split"] == "val"
    assert torch.equal(torch.tensor(report["confusion"]), result.confusion)
    with Path(f"{stem}.csv").open() as file:
        rows = {row["class"]: row for row in csv.DictReader(file)}
    assert list(rows) == list(Synthetic.classes)
    assert float(rows["ground"]["iou"]) == 0
    with Path(f"{stem}-images.csv").open() as file:
        assert [row["name"] for row in csv.DictReader(file)] == ["val_00000", "val_00001", "val_00002"]
    assert images.read_image(f"{stem}-confusion.png").std() > 1


def test_files_are_read_back(tmp_path):
    result = evaluate(Answer(wrong=1), out=tmp_path, boundary=True, **OPTIONS)
    written = tmp_path / f"{result.stem}.json"
    again = Evaluation.read(written)
    assert again.settings == result.settings
    assert torch.equal(again.confusion, result.confusion)
    assert torch.equal(again.counts, result.counts)
    assert again.classes == result.classes
    assert again.images == result.images
    assert again.interval == result.interval
    assert again.stem == result.stem
    assert (again.boundary.radii, again.boundary.published) == (result.boundary.radii, result.boundary.published)
    np.testing.assert_array_equal(again.boundary.boundary_iou, result.boundary.boundary_iou)
    text = written.read_text()
    written.write_text("{}")
    with pytest.raises(ValueError, match="no evaluation"):
        Evaluation.read(written)
    written.write_text(text)
    written.with_name(f"{result.stem}-counts.npz").unlink()
    with pytest.raises(FileNotFoundError, match=r"counts\.npz is missing"):
        Evaluation.read(written)


def test_boundaries_and_worst_images():
    result = evaluate(Answer(wrong=1), boundary=True, **OPTIONS)
    metric = BoundaryMetric(len(Synthetic.classes), dilation_ratio=0.02)
    scenes = Synthetic(None, "val", size=(48, 96), length=3)
    for index in range(3):
        label = torch.from_numpy(scenes.read(index)[1]).long()
        metric.update(torch.where(label == 1, 2, label), label)
    expected = metric.compute()
    assert result.boundary.published == expected.published
    assert result.boundary.present == expected.present
    assert result.boundary.mean_boundary_iou == expected.mean_boundary_iou
    assert result.boundary.mean_boundary_iou < 1
    assert [row["miou"] for row in result.worst(3)] == sorted(row["miou"] for row in result.images)
    assert len(result.worst(1)) == 1


def test_comparison(tmp_path):
    perfect, flawed = (evaluate(answer, **OPTIONS) for answer in (Answer(), Answer(wrong=1)))
    comparison = compare(flawed, perfect)
    assert comparison.difference.mean_iou == pytest.approx(1 - flawed.scores.mean_iou)
    rows = {row["class"]: row for row in comparison.per_class()}
    assert rows["ground"] == {"class": "ground", "first": 0, "second": 1, "difference": 1, "low": 1, "high": 1}
    written = json.loads(comparison.write(tmp_path).read_text())
    assert written["mean_iou"]["low"] > 0
    assert written["classes"][1] == rows[Synthetic.classes[1]]
    others = evaluate(Answer(), **{**OPTIONS, "data_options": {"size": [48, 96], "length": 2}})
    with pytest.raises(ValueError, match="other images"):
        compare(perfect, others)


class Blur(nn.Module):
    """A network of one convolution, so that every inference setting gives other scores."""

    align_corners = False
    classes = Synthetic.classes

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, len(self.classes), 7, padding=3)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"out": self.conv(images)}


@pytest.mark.parametrize("name", VIEWS)
def test_named_views(name):
    """A named view is the options that it stands for."""
    options = {**OPTIONS, "data_options": {"size": [48, 96], "length": 1}}
    named = evaluate(Blur(), setting=name, **options)
    assert torch.equal(named.confusion, evaluate(Blur(), view=VIEWS[name].view, **options).confusion)
    assert torch.equal(named.confusion, evaluate(Blur(), **options).confusion) == (
        not VIEWS[name].view.flip and VIEWS[name].view.short_side is None  # the scene is smaller than a window
    )
    assert named.stem.startswith(f"synthetic-val-{name}-")


def test_a_named_view_stands_alone():
    for given in ({"scales": (3.0,)}, {"view": View(scales=(3.0,))}, {"scales": (1.0,)}):
        with pytest.raises(ValueError, match=r"^--setting gald-crop fixes --scales: give one of the two$"):
            evaluate(Blur(), setting="gald-crop", **OPTIONS, **given)
    with pytest.raises(ValueError, match=r"^--setting gald-crop fixes --short-side"):
        evaluate(Blur(), setting="gald-crop", short_side=64, **OPTIONS)


def test_values_and_options_are_the_same():
    source = DataSource(data="synthetic", split="test", data_options=OPTIONS["data_options"])
    quiet = {"progress": False, "workers": 0}
    ours = evaluate(Blur(), source, View(flip=True, scales=(0.5, 1.0)), scales=(1.5,), split="val", **quiet)
    assert torch.equal(ours.confusion, evaluate(Blur(), flip=True, scales=(1.5,), **OPTIONS).confusion)
    settings = ours.settings
    assert settings.source == replace(source, split="val")
    assert settings.view == View(flip=True, scales=(1.5,))
    assert (settings.model, settings.setting, settings.precision, settings.fast) == ("Blur", None, "32", ())


def test_measuring_needs_neither_lightning_nor_matplotlib():
    code = """
import sys, nonlocalseg.evaluation.scoring, nonlocalseg.evaluation.comparison
heavy = {"lightning", "matplotlib", "h5py", "torchmetrics"}
print([name for name in sys.modules if name in heavy])
print([name for name in sys.modules if name.startswith(("nonlocalseg.recipes", "nonlocalseg.training"))])
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.split() == ["[]", "[]"]


def _evaluate_as_one_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    result = evaluate(Answer(wrong=1), boundary=True, out=folder, **OPTIONS)
    torch.save((result.confusion, result.counts, result.images), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_find_what_one_finds(tmp_path):
    """Three images over two processes: nothing is counted twice to make the shares even."""
    torch.multiprocessing.spawn(_evaluate_as_one_of_two, args=(str(tmp_path),), nprocs=2)
    alone = evaluate(Answer(wrong=1), boundary=True, **OPTIONS)
    for rank in range(2):
        confusion, counts, rows = torch.load(tmp_path / f"{rank}.pt")
        assert torch.equal(confusion, alone.confusion)
        assert torch.equal(counts, alone.counts)
        assert rows == alone.images
    written = Evaluation.read(tmp_path / f"{alone.stem}.json")
    assert written.boundary.images == 3
    assert written.boundary.published == pytest.approx(alone.boundary.published)


def test_settings_reach_inference():
    model = create_model("fcn", "mobilenetv2_035", classes=Synthetic.classes, channels=8, auxiliary_channels=8)
    whole = evaluate(model, **OPTIONS).confusion
    for options in ({"mode": "slide", "crop": 32}, {"flip": True}, {"scales": (0.75, 1.5)}, {"split": "test"}):
        assert not torch.equal(evaluate(model, **OPTIONS, **options).confusion, whole), options
    assert model.training  # left as it was


def test_refusals(tmp_path):
    model = create_model("fcn", "mobilenetv2_035", num_classes=3)
    other = create_model("fcn", "mobilenetv2_035", classes=Synthetic.classes[::-1])
    for call, words in (
        (lambda: evaluate(model, **OPTIONS), "3 classes and synthetic has 9"),
        (lambda: evaluate(other, **OPTIONS), "order"),
        (lambda: evaluate(tmp_path / "nowhere", **OPTIONS), "nowhere"),
        (lambda: evaluate(Answer(), mode="slide", **OPTIONS), "crop"),
        (lambda: evaluate(Answer(), **{**OPTIONS, "data": "synthetik"}), "did you mean 'synthetic'"),
        (lambda: evaluate(Answer(), setting="gald-hole", **OPTIONS), "did you mean 'gald-whole'"),
        (lambda: evaluate(Answer(), short_sid=64, **OPTIONS), "did you mean 'short_side'"),
        (lambda: evaluate(Answer(), precision="8", **OPTIONS), "unknown precision '8'"),
        (lambda: evaluate(Answer(), fast=True, **OPTIONS), "--fast is for models of this library"),
        (lambda: evaluate(Answer(), fast=True, precision="bf16", **OPTIONS), "leave out --precision"),
    ):
        with pytest.raises((ValueError, OSError), match=words) as error:
            call()
        assert "\n" not in str(error.value)


def test_unlabelled_and_broken_images(tmp_path):
    for name in ("a", "b"):
        images.write_image(tmp_path / "images" / "val" / f"{name}.png", np.zeros((20, 30, 3), np.uint8))
        images.write_mask(tmp_path / "masks" / "val" / f"{name}.png", np.zeros((20, 30), np.uint8))
    (tmp_path / "classes.yaml").write_text("masks: {" + ", ".join(f"{i}: c{i}" for i in range(9)) + "}\n")
    quiet = {"root": tmp_path, "progress": False}
    assert evaluate(Blur(), **quiet, workers=0).images[1]["name"] == "b"  # a folder is what is measured by default
    (tmp_path / "images" / "val" / "b.png").write_text("nothing")
    for workers in (0, 1):
        with pytest.raises(ValueError, match=r"b\.png: not an image") as error:
            evaluate(Blur(), **quiet, workers=workers)
        assert "\n" not in str(error.value)
    images.write_image(tmp_path / "release_test" / "testing" / "a.png", np.zeros((20, 30, 3), np.uint8))
    (tmp_path / "ADEChallengeData2016").mkdir()
    with pytest.raises(ValueError, match="the split 'test' has no labels to evaluate against"):
        evaluate(Blur(), data="ade20k", split="test", **quiet)


# --- What is kept, and under which name -------------------------------------------------------------------------


def test_other_settings_never_replace_a_result(tmp_path):
    for name in ("one", "two"):
        for split in ("val", "train"):
            images.write_image(tmp_path / name / "images" / split / "a.png", np.zeros((20, 30, 3), np.uint8))
            images.write_mask(tmp_path / name / "masks" / split / "a.png", np.zeros((20, 30), np.uint8))
        classes = ", ".join(f"{i}: c{i}" for i in range(9))
        (tmp_path / name / "classes.yaml").write_text(f"masks: {{{classes}}}\n")
    quiet: dict[str, Any] = {"progress": False, "workers": 0, "out": tmp_path / "out"}
    one, two = ({"data": "folder", "root": tmp_path / name} for name in ("one", "two"))
    given = ({}, {"flip": True}, {"scales": (2.0,)}, {"split": "train"}, {"precision": "bf16"})
    stems = [evaluate(Blur(), **root, **more, **quiet).stem for root in (one, two) for more in given]
    assert len(set(stems)) == len(stems)
    assert {path.stem for path in (tmp_path / "out").glob("*.json")} == set(stems)
    assert evaluate(Blur(), **one, **quiet).stem == stems[0]  # the same again takes its own place
    assert len(list((tmp_path / "out").glob("*.json"))) == len(stems)


def test_a_root_is_kept_as_it_is_found_from_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert DataSource(data="folder", root="mine").root == str(tmp_path / "mine")


def test_boundaries_are_kept_where_the_rest_is_the_same(tmp_path):
    model = Blur()
    measured = evaluate(model, boundary=True, out=tmp_path, **OPTIONS)
    again = evaluate(model, out=tmp_path, **OPTIONS)
    for found in (again, Evaluation.read(tmp_path / f"{measured.stem}.json")):
        assert found.boundary is not None
        assert found.boundary.published == measured.boundary.published
    assert evaluate(model, out=tmp_path, flip=True, **OPTIONS).boundary is None
    with torch.no_grad():
        model.conv.weight.mul_(-1)  # trained on
    assert evaluate(model, out=tmp_path, **OPTIONS).boundary is None
    assert fingerprint(model) != measured.settings.weights == fingerprint(Blur())


def test_what_is_kept_grows_by_a_row_an_image_and_the_counts_are_in_a_file(monkeypatch):
    """Of 171 classes and 10,000 images 41 MB in a temporary file, not the 2.4 GB of their confusion matrices."""
    classes, count = 171, 40
    label = torch.arange(64, dtype=torch.uint8).view(8, 8)
    scenes = [scoring._Scene(f"{n}", torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8), label) for n in range(count)]
    torch.manual_seed(0)
    network = nn.Conv2d(3, classes, 1)
    mapped, written = scoring._mapped, []

    def noted(file, shape):
        written.append(file.tell())
        return mapped(file, shape)

    monkeypatch.setattr(scoring, "_mapped", noted)
    share = scoring._measured(network, scenes, View(), torch.device("cpu"), classes, None)
    assert len(pickle.dumps(share._replace(counts=None))) < count * 1000 + classes * (classes + 1) * 8 + 5000
    assert written == [count * classes * 3 * 8]
    assert share.counts.shape == (count, classes, 3)
    assert int(share.confusion.sum()) == 64 * count
    assert torch.equal(share.counts.sum(0), class_counts(share.confusion))


def test_damaged_evaluations_are_told_in_one_line(tmp_path):
    """Bytes and values of the three files changed at random: each is read, or refused by its name."""
    result = evaluate(Blur(), boundary=True, out=tmp_path, **OPTIONS)
    path = tmp_path / f"{result.stem}.json"
    files = [path, *(path.with_name(f"{path.stem}-{end}") for end in ("images.csv", "counts.npz"))]
    whole = {file: file.read_bytes() for file in files}
    chance, refused = random.Random(0), []
    others = (b"null", b"-1", b"1e999", b"NaN", b"[]", b"{}", b'"x"', b"99999999999999999999", b"true", b"")
    for number in range(240):
        file = files[number % 3]
        content = bytearray(whole[file])
        start = chance.randrange(len(content))
        if number % 2 and file.suffix != ".npz":
            numbers = list(re.finditer(rb"-?\d[\d.e-]*|\[|\{", content))
            spot = chance.choice(numbers)
            content[spot.start() : spot.end()] = chance.choice(others)
        elif number % 4:
            content[start] = chance.randrange(256)
        else:
            del content[start:]
        file.write_bytes(content)
        try:
            Evaluation.read(path)
        except (ValueError, FileNotFoundError) as error:
            refused.append(str(error))
        file.write_bytes(whole[file])
    assert len(refused) > 120
    assert all("\n" not in line and str(path) in line for line in refused)
    assert torch.equal(Evaluation.read(path).counts, result.counts)


def test_an_evaluation_is_told_in_one_line():
    result = evaluate(Answer(), **OPTIONS)
    assert repr(result) == "Evaluation(synthetic, val: mIoU 100.00 % (100.00 to 100.00), 3 images)"
    assert repr(compare(result, result)) == "Comparison(Answer against Answer: mIoU +0.00 points (+0.00 to +0.00))"
    assert len(repr(result.scores)) < 80
