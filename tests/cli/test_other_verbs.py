"""What `train`, `check-data`, `convert` and `list` take and leave behind."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import Any

import pytest
import torch
from tiny_runs import BACKBONE, CLASSES, files_in, train

import nonlocalseg as nls
from nonlocalseg.cli import find_verb, listing, main
from nonlocalseg.conversion.config_text import parse
from nonlocalseg.models.catalog import MODELS
from nonlocalseg.models.creation import create_model
from nonlocalseg.recipes.catalog import RECIPES
from nonlocalseg.training import runs
from nonlocalseg.values import names_of, options_of


def test_parsed_values_reach_the_function(monkeypatch):
    given: dict[str, Any] = {}
    monkeypatch.setattr(runs, "train", lambda recipe, **options: given.update(options, recipe=recipe) or sys.exit(0))
    words = "x --crop 96 --scale 0.5 1 --rate 1e-3 --no-ohem --devices 2 --batch_size=4 --class-weights 1 2.5"
    more = "--wiring paper --model-options key-channels=8 fuse=[3,4] --val-fraction 0.2"
    main(["train", *words.split(), *more.split()])
    assert given["crop"] == (96, 96)
    assert given["scale"] == (0.5, 1)
    assert given["rate"] == 1e-3
    assert given["ohem"] is False
    assert "pretrained" not in given
    assert given["devices"] in (2, "2")
    assert (given["batch_size"], given["recipe"]) == (4, "x")
    assert given["class_weights"] == (1, 2.5)
    assert given["model_options"] == {"key_channels": 8, "fuse": (3, 4), "wiring": "paper"}
    assert given["data_options"] == {"val_fraction": 0.2}
    assert "progress" not in given


def test_check_data(capsys, trained):
    assert main(["check-data", "folder", "--root", str(trained[0])]) == 0
    shown = capsys.readouterr()
    assert "no problems" in shown.out
    assert "4 images" in shown.out
    assert shown.err == ""


def test_convert_there_and_back(capsys, tmp_path):
    options: dict[str, Any] = {"channels": 8, "key_channels": 4, "value_channels": 4, "auxiliary_channels": 4}
    small = {"channels": [8, 16, 32, 64], "stem_type": "deep", "stem_width": 4}
    model = create_model("ann", "resnet18", classes=CLASSES, wiring="mmseg", backbone_options=small, **options).eval()
    model.save_pretrained(tmp_path / "model")
    theirs, again = tmp_path / "theirs.pth", tmp_path / "again"
    (tmp_path / "names.txt").write_text("one\ntwo\n")
    assert main(["convert", str(tmp_path / "model"), "--to", "mmseg", "--out", str(theirs)]) == 0
    words = ["convert", str(theirs), "--source", "mmseg", "--out"]
    assert main([*words, str(again)]) == 0
    said = capsys.readouterr().out
    assert "ann on resnet18, 2 classes" in said
    assert "note:" not in said
    config = theirs.with_suffix(".py")
    assert parse(config.read_text())["model"]["decode_head"]["type"] == "ANNHead"
    config.write_text("mine")
    assert main(["convert", str(tmp_path / "model"), "--to", "mmseg", "--out", str(theirs)]) == 2
    assert "choose another name" in " ".join(capsys.readouterr().err.split())
    assert config.read_text() == "mine"
    torch.save(torch.load(theirs)["state_dict"], tmp_path / "bare.pth")
    assert main(["convert", str(tmp_path / "bare.pth"), "--source", "mmseg", "--out", str(tmp_path / "bare")]) == 0
    assert "note: the checkpoint holds no config of its network; assumed: output" in capsys.readouterr().out
    image = torch.rand(1, 3, 40, 48)
    assert torch.equal(nls.from_pretrained(again)(image)["out"], model(image)["out"])
    assert nls.from_pretrained(again).classes == CLASSES
    named = [*words, str(tmp_path / "named"), "--classes-file", str(tmp_path / "names.txt"), "--align-corners"]
    assert main(named) == 0
    assert nls.from_pretrained(tmp_path / "named").classes == ("one", "two")
    assert nls.from_pretrained(tmp_path / "named").align_corners
    before = files_in(again)
    assert main([*words, str(again)]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert files_in(again) == before


def test_list_models(capsys):
    assert main(["list", "models", "--cost", "--backbone", BACKBONE, "--size", "64", "96"]) == 0
    shown = capsys.readouterr().out
    for name in MODELS:
        assert f" {name} " in shown
    assert "test_resnet.r160_in1k, one 64x96 image" in shown


def test_list_datasets_and_recipes(capsys):
    assert main(["list", "datasets", "--data", "camvid"]) == 0
    shown = capsys.readouterr().out
    assert "train (367)" in shown
    assert "Bicyclist" in shown
    assert "synthetic" not in shown
    assert main(["list", "recipes", "--data", "synthetic"]) == 0
    shown = capsys.readouterr().out
    assert [name for name in RECIPES if name in shown] == [name for name in RECIPES if name.startswith("synthetic/")]


def test_cost_is_counted_when_asked_for(capsys):
    assert main(["list", "models"]) == 0
    shown = capsys.readouterr().out
    assert all(f" {name} " in shown for name in MODELS)
    assert listing.described_models() == {name: model.description for name, model in MODELS.items()}
    assert "multiply-adds" not in shown
    assert main(["list", "models", "--size", "64"]) == 2
    assert "error: --size has an effect with --cost only" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["models", "datasets", "recipes", "zoo"])
def test_lists_need_no_torch(what):
    code = (
        "import sys; from nonlocalseg.cli import main; main(['list', '" + what + "']); "
        "print([name for name in ('torch', 'torchvision', 'timm', 'lightning') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_option_of_every_head_is_explained(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    assert main(["list", "models", "--model", name]) == 0
    shown = capsys.readouterr().out
    for option in options_of(type(MODELS[name].options)).values():
        assert option.help, f"{name}: {option.name} is not explained"
        assert f" {option.name} " in shown
        assert option.help.split()[0] in shown


def test_options_of_a_data_set_are_explained(capsys):
    assert main(["list", "datasets", "--data", "synthetic"]) == 0
    shown = capsys.readouterr().out
    for name in ("size", "length", "seed"):
        assert f" {name} " in shown


def test_what_a_recipe_presets_can_be_switched_off(monkeypatch):
    given: dict[str, Any] = {}
    monkeypatch.setattr(runs, "train", lambda recipe, **options: given.update(options) or sys.exit(0))
    main(["train", "x", "--no-pretrained", "--val-split", "none"])
    assert given["pretrained"] is False
    assert given["val_split"] == "none"


@pytest.mark.parametrize("verb", ["report", "evaluate"])
def test_fields_of_a_data_source_are_options(verb):
    assert set(names_of(find_verb(verb).values[0])) <= set(find_verb(verb).options())


def test_dry_run_trains_nothing(trained, tmp_path, capsys):
    assert main([*train(trained[0], tmp_path / "run"), "--dry-run", "--wiring", "mmseg"]) == 0
    assert "fcn on test_resnet" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_explain_draws_what_there_is(trained, tmp_path, capsys, mistake):
    words = ["explain", trained[1], trained[0] / "images/val/0.png", "--out", tmp_path / "out", "--device", "cpu"]
    assert main([*map(str, words), "--kind", "features", "--pixel", "3", "4"]) == 0
    assert set(files_in(tmp_path / "out")) == {"0-features.png", "0-features.svg"}
    assert capsys.readouterr().out.count("0-features") == 2
    assert "unknown kind of picture 'feature': did you mean 'features'?" in mistake(*words, "--kind", "feature")
    assert "--truth: errors need the label image" in mistake(*words, "--kind", "errors")


def test_report_is_one_page(trained, tmp_path, capsys):
    run = shutil.copytree(trained[1], tmp_path / "run")
    words = ["--root", str(trained[0]), "--images", "1", "--pixels", "0", "--workers", "0", "--out"]
    assert main(["report", str(run), *words, str(tmp_path / "page.html")]) == 0
    assert f"report in {tmp_path / 'page.html'}" in capsys.readouterr().out.replace("\n", "")
    assert "thing" in (tmp_path / "page.html").read_text()
