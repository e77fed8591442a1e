"""Wrong input: every mistake is one line on stderr, with exit code 2, and leaves nothing behind."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from tiny_runs import files_in, train

from nonlocalseg import images
from nonlocalseg.cli import main
from nonlocalseg.models.creation import create_model


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("trian", "did you mean 'train'?"),
        ("predict m p --outt x", "unknown option of nonlocalseg predict '--outt': did you mean '--out'?"),
        ("predict m p --out x --mode slid", "--mode: 'slid' is unknown; did you mean 'slide'?"),
        ("predict m", "PATHS missing"),
        ("predict m . --out x --crop abc", "--crop: 'abc' is not a whole number"),
        ("predict m . --out x --crop 1 2 3", "--crop: 1 2 3 is 3 values"),
        ("train --rate fast", "--rate: 'fast' is not a number"),
        ("train --steps", "--steps"),
        ("train --model-options wiring", "--model-options: 'wiring' is not KEY=VALUE"),
        ("train a b", "unrecognized arguments: b (see `nonlocalseg train --help`)"),
        ("list cars", "WHAT: 'cars' is unknown; choose from models, datasets, recipes"),
        ("list recipes --data camvit", "did you mean 'camvid'?"),
        ("check-data foldr --root .", "did you mean 'folder'?"),
        ("check-data folder --root . --data-options vall_fraction=0.2", "did you mean 'val_fraction'?"),
        ("convert x.pth --out y", "give either --source"),
        ("predict m nothing.jpg --out x", "nothing.jpg: no such file"),
    ],
)
def test_wrong_words_are_named(mistake, words, said):
    assert said in mistake(*words.split())


@pytest.mark.parametrize("verb", ["train", "evaluate", "check-data"])
def test_missing_root(mistake, tmp_path, trained, verb):
    missing, out = tmp_path / "nowhere", tmp_path / "out"
    words = {
        "train": train(missing, out),
        "evaluate": ["evaluate", trained[1], "--data", "folder", "--root", missing, "--out", out],
        "check-data": ["check-data", "folder", "--root", missing],
    }[verb]
    assert "nowhere" in mistake(*words)
    assert list(tmp_path.iterdir()) == []


def test_wrong_recipe(mistake):
    assert "'camvid/ann-resnet50c'" in mistake("train", "camvid/ann-resnet50d")


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_label(mistake, data, tmp_path, workers):
    file = data / "masks/train/2.png"
    mask = images.read_mask(file)
    mask[0, 0] = 7
    images.write_mask(file, mask)
    line = mistake(*train(data, tmp_path / "run", "--workers", str(workers)))
    assert "value 7 in 1 pixels" in line
    assert not (tmp_path / "run").exists()


def test_bad_label_is_found_before_training(capsys, data, tmp_path):
    images.write_mask(data / "masks/train/2.png", np.full((48, 64), 7, np.uint8))
    assert main(["check-data", "folder", "--root", str(data), "--json", str(tmp_path / "report.json")]) == 2
    shown = capsys.readouterr()
    assert "value 7" in shown.out
    assert shown.err.startswith("error: 1 problem")
    assert shown.err.count("\n") == 1
    assert json.loads((tmp_path / "report.json").read_text())["problems"][0]["file"].endswith("2.png")


@pytest.mark.parametrize("empty", ["images/train", "images/val"])
def test_empty_folder(mistake, data, tmp_path, empty):
    for file in [*(data / empty).iterdir(), *(data / empty.replace("images", "masks")).iterdir()]:
        file.unlink()
    assert empty.split("/")[1] in mistake(*train(data, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_training_without_a_labelled_pixel(mistake, data, tmp_path):
    (data / "classes.yaml").write_text("masks: {0: ignore, 1: ignore, 2: ground, 3: thing}")
    assert "every pixel of the split 'train' is ignored, none is there to train on" in mistake(
        *train(data, tmp_path / "run")
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_corrupt_image_in_training(mistake, data, tmp_path, workers):
    file = data / "images/train/3.png"
    file.write_bytes(file.read_bytes()[:1000])
    assert "images/train/3.png" in mistake(*train(data, tmp_path / "run", "--workers", str(workers)))
    assert not (tmp_path / "run").exists()


def test_wrong_class_count_on_resume(mistake, trained, tmp_path):
    root, run = shutil.copytree(trained[0], tmp_path / "data"), shutil.copytree(trained[1], tmp_path / "run")
    (root / "classes.yaml").write_text("masks: {0: ground, 1: thing, 2: other}\n")
    before = files_in(run)
    line = mistake("train", "--resume", run, "--root", root, "--steps", 4)
    assert "trained for 2 classes and the data has 3" in line
    assert files_in(run) == before


def test_negative_crop(mistake, data, trained, tmp_path):
    assert "--crop: -48; give 16 or more" in mistake(*train(data, tmp_path / "run", "--crop", "-48", "64"))
    out = tmp_path / "out"
    assert "--crop: -5; give 1 or more" in mistake(
        "predict", trained[1], data, "--out", out, "--mode", "slide", "--crop", -5
    )
    assert not out.exists()
    assert not (tmp_path / "run").exists()


def test_unknown_backbone(mistake, data, tmp_path):
    assert "did you mean 'resnet18'?" in mistake(*train(data, tmp_path / "run", "--backbone", "resnet181"))
    assert not (tmp_path / "run").exists()


def test_corrupt_checkpoint(mistake, data, trained, tmp_path):
    run, out = shutil.copytree(trained[1], tmp_path / "run"), tmp_path / "out"
    for name in ("checkpoints/last.ckpt", "best/model.safetensors"):
        (run / name).write_bytes((run / name).read_bytes()[:5000])
    before = files_in(run)
    assert "last.ckpt is corrupt" in mistake("train", "--resume", run, "--root", data)
    assert "model.safetensors is corrupt" in mistake("predict", run, data, "--out", out)
    assert "model.safetensors is corrupt" in mistake("evaluate", run, "--root", data, "--out", out)
    ckpt = run / "checkpoints/last.ckpt"
    assert "last.ckpt is no readable" in mistake("convert", ckpt, "--source", "mmseg", "--out", out)
    assert not out.exists()
    assert files_in(run) == before


def test_unwritable_output(mistake, data, trained, tmp_path):
    file = tmp_path / "file"
    file.write_text("kept")
    out = file / "below"
    before = files_in(tmp_path)
    model = create_model("ann", "resnet18", num_classes=2, wiring="mmseg", channels=8, key_channels=8, value_channels=8)
    model.save_pretrained(tmp_path / "ann")
    for words in (
        train(data, out),
        ["predict", trained[1], data, "--out", out],
        ["evaluate", trained[1], "--root", data, "--out", out],
        ["convert", tmp_path / "ann", "--to", "mmseg", "--out", out / "a.pth"],
        ["check-data", "folder", "--root", data, "--json", out / "report.json"],
    ):
        assert str(file) in mistake(*words)
    shutil.rmtree(tmp_path / "ann")
    assert files_in(tmp_path) == before


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--device", "gpu"), "--device: 'gpu' is unknown"),
        (("--device", "cuda:99"), "there is no cuda:99 here"),
        (("--accumulate-on", "cuda:99"), "there is no cuda:99 here"),
        (("--setting", "gald-hole"), "did you mean 'gald-whole'"),
        (("--setting", "gald-whole", "--flip"), "--setting gald-whole fixes --flip: give one of the two"),
        (("--scales", "0"), "scales"),
    ],
)
def test_options_of_predict_are_checked_first(mistake, data, tmp_path, more, said):
    assert said in mistake("predict", "no-model", data, "--out", tmp_path / "out", *more)


def test_a_view_is_checked_with_that_of_the_model(mistake, data, trained, tmp_path):
    words = ["predict", trained[1], data, "--out", tmp_path / "out", "--mode", "slide"]
    assert "mode slide needs the size of its windows" in mistake(*words)
    assert not (tmp_path / "out").exists()
