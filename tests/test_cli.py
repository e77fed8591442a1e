"""The command line: what each verb leaves behind, and that every mistake is one line on stderr with its exit code."""

from __future__ import annotations

import csv
import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import nonlocalseg as nls
from nonlocalseg import images
from nonlocalseg.cli import VERBS, main
from nonlocalseg.cli.errors import explain
from nonlocalseg.cli.listing import cost
from nonlocalseg.cli.parsing import Verb, options_of, parse
from nonlocalseg.cli.prediction import named_images
from nonlocalseg.models.presets import MODELS, create_model
from nonlocalseg.training import running
from nonlocalseg.training.recipes import RECIPES

CLASSES = ("ground", "thing")
TINY = ("channels=8", "auxiliary_channels=8")
FAST = ("--steps", "2", "--batch-size", "4", "--crop", "48", "64", "--workers", "0", "--val-every", "2")


def train(root: Path, out: Path, *more: str) -> list[str]:
    """The words of a training that is over in seconds; the last of two equal options counts."""
    network = ("--model", "fcn", "--backbone", "test_resnet.r160_in1k", "--model-options", *TINY)
    return ["train", "--data", "folder", "--root", str(root), "--out", str(out), *network, *FAST, *more]


def draw(root: Path) -> Path:
    """A folder data set of two classes: a bright square on dark ground."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for number in range(count):
            picture = generator.integers(0, 80, (48, 64, 3), dtype=np.uint8)
            mask = np.zeros((48, 64), np.uint8)
            y, x = generator.integers(0, 30, 2)
            picture[y : y + 16, x : x + 16] += 150
            mask[y : y + 16, x : x + 16] = 1
            images.write_image(root / "images" / split / f"{number}.png", picture)
            images.write_mask(root / "masks" / split / f"{number}.png", mask)
    (root / "classes.yaml").write_text("masks: {0: ground, 1: thing}\n")
    return root


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return draw(tmp_path / "data")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folders of a data set and of a run on it; tests must not change them."""
    place = tmp_path_factory.mktemp("trained")
    root = draw(place / "data")
    assert main(train(root, place / "run")) == 0
    return root, place / "run"


@pytest.fixture
def mistake(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """`mistake(*words)` runs a verb that must fail with exit code 2 and one line on stderr, which it returns."""

    def run(*words: object) -> str:
        capsys.readouterr()
        code = main([str(word) for word in words])
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1, lines
        assert code == 2, lines
        assert lines[0].startswith("error: ")
        return lines[0]

    return run


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# --- Help and parsing ---------------------------------------------------------------------------------------------


def test_help_imports_nothing_slow():
    code = (
        "import sys; from nonlocalseg.cli import main; main(['--help'])\n"
        "slow = {'torch', 'numpy', 'rich', 'jsonargparse', 'yaml', 'PIL', 'lightning', 'timm'} & set(sys.modules)\n"
        "assert not slow, slow"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for name, verb in VERBS.items():
        assert f"  {name}" in shown
        assert verb.summary in shown


@pytest.mark.parametrize("name", sorted(VERBS))
def test_every_verb_explains_itself(name, capsys):
    assert main([name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: nonlocalseg {name}")
    assert VERBS[name].summary in shown
    assert f"    nonlocalseg {name}" in shown  # an example
    for option in options_of(VERBS[name]):
        assert option.help, f"{option.name} is not explained"
        assert option.name in VERBS[name].positional or option.flag in shown


@pytest.mark.parametrize("name", sorted(VERBS))
def test_examples_are_accepted(name, capsys):
    """Every example of the help text parses, with the options that exist."""
    main([name, "--help"])
    examples = [line.split()[2:] for line in capsys.readouterr().out.splitlines() if line.startswith("    nonlocalseg")]
    assert examples
    for words in examples:
        assert parse(name, VERBS[name], [word.strip('"') for word in words]) is not None


def test_parsed_values_reach_the_function(monkeypatch):
    given: dict[str, Any] = {}
    real = running.train
    monkeypatch.setattr(running, "train", functools.wraps(real)(lambda **options: given.update(options) or sys.exit(0)))
    words = "x --crop 96 --scale 0.5 1 --rate 1e-3 --no-ohem --devices 2 --batch_size=4 --class-weights 1 2.5"
    more = "--wiring paper --model-options key-channels=8 fuse=[3,4] --val-fraction 0.2"
    main(["train", *words.split(), *more.split()])
    assert given["crop"] == (96, 96)
    assert given["scale"] == (0.5, 1)
    assert given["rate"] == 1e-3
    assert (given["ohem"], given["pretrained"]) == (False, None)
    assert given["devices"] in (2, "2")
    assert (given["batch_size"], given["recipe"]) == (4, "x")
    assert given["class_weights"] == (1, 2.5)
    assert given["model_options"] == {"key_channels": 8, "fuse": [3, 4], "wiring": "paper"}
    assert given["data_options"] == {"val_fraction": 0.2}
    assert "progress" not in given


@pytest.mark.parametrize(("words", "stride"), [("512", 512), ("0.5", 0.5), ("1.0", 1.0), ("256 0.5", (256, 0.5))])
def test_strides_in_pixels_stay_whole_numbers(words, stride):
    found = parse("predict", VERBS["predict"], ["m", "p", "--out", "o", "--stride", *words.split()])
    assert found is not None
    assert found["stride"] == stride
    assert type(found["stride"]) is type(stride)
    assert found["paths"] == ("p",)
    assert found["scales"] == (1.0,)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("trian", "did you mean 'train'?"),
        ("predict m p --outt x", "has no option --outt: did you mean --out?"),
        ("predict m p --out x --mode slid", "--mode: 'slid' is not one of whole, slide; did you mean 'slide'?"),
        ("predict m", "PATHS and --out missing"),
        ("predict m . --out x --crop abc", "--crop: 'abc' is not a whole number"),
        ("predict m . --out x --crop 1 2 3", "--crop: 3 values; give one or two"),
        ("train --rate fast", "--rate: 'fast' is not a number"),
        ("train --steps", "--steps"),
        ("train --model-options wiring", "--model-options: 'wiring' is not KEY=VALUE"),
        ("train a b", "b (see `nonlocalseg train --help`)"),
        ("list cars", "WHAT: 'cars' is not one of models, datasets, recipes"),
        ("list recipes --data camvit", "did you mean 'camvid'?"),
        ("check-data foldr --root .", "did you mean 'folder'?"),
        ("check-data folder --root . --data-options vall_fraction=0.2", "did you mean 'val_fraction'?"),
        ("convert x.pth --out y", "give either --source"),
        ("predict m nothing.jpg --out x", "nothing.jpg: no such file"),
    ],
)
def test_wrong_words_are_named(mistake, words, said):
    assert said in mistake(*words.split())


def test_a_typed_function_is_all_that_a_verb_needs(capsys, monkeypatch):
    def shout(word: str, *, times: int = 1, loud: bool = False) -> int:
        """Say a word.

        Args:
            word: the word.
            times: how often.
            loud: in capitals.

        Examples:
            nonlocalseg shout hello
        """
        print(" ".join([word.upper() if loud else word] * times))
        return 7

    monkeypatch.setitem(VERBS, "shout", Verb(shout, ("word",)))
    assert main(["shout", "ho", "--times", "2", "--loud"]) == 7
    assert capsys.readouterr().out == "HO HO\n"


# --- Exit codes ---------------------------------------------------------------------------------------------------


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """`failing(error)` makes the verb `list` raise it."""

    def fail(error: BaseException) -> None:
        def run(what: str) -> None:
            """Fail."""
            raise error

        monkeypatch.setitem(VERBS, "list", Verb(run, ("what",)))

    return fail


def test_unexpected_errors_point_to_debug(failing, capsys):
    failing(KeyError("deep\ninside"))
    assert main(["list", "models"]) == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert line.startswith("internal error: KeyError: ")
    assert "--debug" in line
    assert main(["--debug", "list", "models"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_debug_shows_where_a_mistake_was_found(capsys):
    assert main(["train", "camvid/an", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_interruption(failing, capsys):
    failing(KeyboardInterrupt())
    assert main(["list", "models"]) == 130
    assert capsys.readouterr().err.count("\n") == 1
    lightnings = SystemExit(1)
    lightnings.__context__ = KeyboardInterrupt()
    failing(lightnings)
    assert main(["list", "models"]) == 130


def test_errors_of_worker_processes_lose_their_traceback():
    text = (
        "Caught ValueError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
        '  File "x.py", line 1, in y\n    raise ValueError()\nValueError: a.png: cut off\n'
    )
    assert explain(ValueError(text)) == ("error: a.png: cut off", 2)
    assert explain(ValueError("two\n  lines")) == ("error: two lines", 2)
    assert explain(OSError(28, "No space left on device", "x.png"))[0].startswith("error: x.png: no space is left")
    assert explain(torch.OutOfMemoryError("CUDA out of memory"))[1] == 1


def test_a_reader_that_stops_listening_is_no_error():
    code = "import sys; from nonlocalseg.cli import main; sys.exit(main(['list', 'recipes']))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert b"Traceback" not in process.stderr.read()
    assert process.wait() == 1


# --- The ten kinds of wrong input ---------------------------------------------------------------------------------


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
    assert "crop is (-48, 64)" in mistake(*train(data, tmp_path / "run", "--crop", "-48", "64"))
    out = tmp_path / "out"
    assert "crop: -5" in mistake("predict", trained[1], data, "--out", out, "--mode", "slide", "--crop", -5)
    assert not out.exists()
    assert not (tmp_path / "run").exists()


def test_unknown_backbone(mistake, data, tmp_path):
    assert "did you mean 'resnet18'?" in mistake(*train(data, tmp_path / "run", "--backbone", "resnet181"))
    assert not (tmp_path / "run").exists()


def test_corrupt_checkpoint(mistake, data, trained, tmp_path):
    run, out = shutil.copytree(trained[1], tmp_path / "run"), tmp_path / "out"
    for name in ("checkpoints/last.ckpt", "model/model.safetensors"):
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
        (("--mode", "slide"), "mode slide needs the size of its windows"),
        (("--scales", "0"), "scales"),
    ],
)
def test_options_of_predict_are_checked_first(mistake, data, tmp_path, more, said):
    assert said in mistake("predict", "no-model", data, "--out", tmp_path / "out", *more)


# --- What the verbs leave behind ----------------------------------------------------------------------------------


def test_check_data(capsys, trained):
    assert main(["check-data", "folder", "--root", str(trained[0])]) == 0
    shown = capsys.readouterr()
    assert "no problems" in shown.out
    assert "4 images" in shown.out
    assert shown.err == ""


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


def test_predict_every_kind_of_file(capsys, trained, tmp_path):
    model, source, out = nls.from_pretrained(trained[1]), tmp_path / "in", tmp_path / "out"
    picture = images.read_image(trained[0] / "images/val/0.png")
    (source / "deep/er").mkdir(parents=True)
    images.write_image(source / "plain.jpg", picture)
    Image.fromarray(picture).convert("L").save(source / "grey.png")
    Image.fromarray(picture).convert("RGBA").save(source / "alpha.png")
    Image.fromarray(picture).convert("CMYK").save(source / "deep/cmyk.jpg")
    Image.fromarray(picture[..., 0].astype(np.uint16) * 257).save(source / "deep/er/sixteen.png")
    turned = Image.fromarray(picture)
    exif = turned.getexif()
    exif[274] = 6
    turned.save(source / "turned.jpg", exif=exif)
    (source / "broken.png").write_bytes(b"\x89PNG nothing")

    assert main(["predict", str(trained[1]), str(source), "--out", str(out), "--probabilities"]) == 1

    shown = capsys.readouterr()
    assert len(shown.err.splitlines()) == 1
    assert "broken.png" in shown.err
    assert "6 of 7 images" in shown.out
    names = {"plain", "grey", "alpha", "deep/cmyk", "deep/er/sixteen", "turned"}
    expected = {f"{kind}/{name}.png" for kind in ("index", "colour", "overlay") for name in names}
    assert set(files_in(out)) == expected | {f"probabilities/{name}.npz" for name in names}
    assert Image.open(out / "index/turned.png").size == (48, 64)
    mask = nls.predict(model, source / "deep/cmyk.jpg").mask.numpy()
    index = Image.open(out / "index/deep/cmyk.png")
    assert index.mode == "P"
    assert np.array_equal(np.array(index), mask)
    assert np.array_equal(np.array(index.convert("RGB")), images.read_image(out / "colour/deep/cmyk.png"))
    assert images.read_image(out / "overlay/plain.png").shape[1] > 64  # with its legend
    with np.load(out / "probabilities/deep/cmyk.npz") as stored:
        assert stored["classes"].tolist() == list(CLASSES)
        assert stored["probabilities"].dtype == np.float32
        assert np.array_equal(stored["probabilities"].argmax(0), mask)
        assert np.allclose(stored["probabilities"].sum(0), 1, atol=1e-5)


def test_predict_passes_its_options_on(trained, tmp_path):
    photo = trained[0] / "images/val/1.png"
    options = ["--mode", "slide", "--crop", "32", "48", "--stride", "0.5", "--scales", "0.75", "1", "--flip"]
    more = ["--average", "logits", "--probabilities", "--accumulate-on", "cpu", "--device", "cpu"]
    assert main(["predict", str(trained[1]), str(photo), "--out", str(tmp_path), *options, *more]) == 0
    expected = nls.predict(
        nls.from_pretrained(trained[1]), photo, "slide", (32, 48), 0.5, (0.75, 1), flip=True, average="logits"
    )
    with np.load(tmp_path / "probabilities/1.npz") as stored:
        assert np.allclose(stored["probabilities"], expected.probabilities.numpy(), atol=1e-6)


def test_too_small_photographs_are_reported_by_name(capsys, trained, tmp_path):
    images.write_image(tmp_path / "small.png", np.zeros((8, 8, 3), np.uint8))
    images.write_image(tmp_path / "well.png", np.zeros((32, 32, 3), np.uint8))
    assert main(["predict", str(trained[1]), str(tmp_path / "*.png"), "--out", str(tmp_path / "out")]) == 1
    assert "small.png: images must be at least 16x16" in capsys.readouterr().err
    assert (tmp_path / "out/index/well.png").is_file()


def test_outputs_never_share_a_name(tmp_path):
    for name in ("a/x.jpg", "a/x.png", "b/x.png", "b/y.v2.png", "c/z.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        images.write_image(tmp_path / name, np.zeros((2, 2, 3), np.uint8))
    names = named_images([str(tmp_path / "a"), str(tmp_path / "b/*.png"), str(tmp_path / "c/z.png")])
    assert [name for name in names.values()] == ["a/x.jpg", "a/x.png", "b/x.png", "y.v2", "z"]
    assert list(named_images([str(tmp_path / "b"), str(tmp_path / "c")]).values()) == ["x", "y.v2", "z"]
    assert list(named_images([str(tmp_path / "*" / "y.*.png")]).values()) == ["b/y.v2"]
    beside = [str(tmp_path / "c/../a/x.png"), str(tmp_path / "b/x.png")]
    assert list(named_images(beside).values()) == ["a/x.png", "b/x.png"]


def test_convert_there_and_back(capsys, tmp_path):
    options: dict[str, Any] = {"channels": 8, "key_channels": 4, "value_channels": 4, "auxiliary_channels": 4}
    small = {"channels": [8, 8, 8, 8], "stem_type": "deep", "stem_width": 4}
    model = create_model("ann", "resnet18", classes=CLASSES, wiring="mmseg", backbone_options=small, **options).eval()
    model.save_pretrained(tmp_path / "model")
    theirs, again = tmp_path / "theirs.pth", tmp_path / "again"
    (tmp_path / "names.txt").write_text("one\ntwo\n")
    assert main(["convert", str(tmp_path / "model"), "--to", "mmseg", "--out", str(theirs)]) == 0
    words = ["convert", str(theirs), "--source", "mmseg", "--out"]
    assert main([*words, str(again)]) == 0
    assert "ann on resnet18, 2 classes" in capsys.readouterr().out
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
    assert main(["list", "models", "--backbone", "test_resnet.r160_in1k", "--size", "64", "96"]) == 0
    shown = capsys.readouterr().out
    for name in MODELS:
        assert f" {name} " in shown
    assert "test_resnet.r160_in1k, one 64x96 image" in shown


def test_multiply_adds_are_those_of_the_layers():
    """Against a count by hand of the convolutions, the only arithmetic of `fcn` that counts."""
    model = create_model("fcn", "test_resnet.r160_in1k", num_classes=3, channels=8, auxiliary=False).eval()
    total = 0

    def add(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
        nonlocal total
        total += output.shape[2] * output.shape[3] * module.weight.numel()  # pyright: ignore

    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(add)
    with torch.no_grad():
        model(torch.rand(1, 3, 64, 96))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert cost("fcn", "test_resnet.r160_in1k", (64, 96), 3, channels=8) == (parameters, total)


def test_list_datasets_and_recipes(capsys):
    assert main(["list", "datasets", "--data", "camvid"]) == 0
    shown = capsys.readouterr().out
    assert "train (367)" in shown
    assert "Bicyclist" in shown
    assert "synthetic" not in shown
    assert main(["list", "recipes", "--data", "synthetic"]) == 0
    shown = capsys.readouterr().out
    assert [name for name in RECIPES if name in shown] == [name for name in RECIPES if name.startswith("synthetic/")]
