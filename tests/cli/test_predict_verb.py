"""What `predict` leaves behind: which pictures, of which photographs, under which names."""

from __future__ import annotations

import csv
import os
import shutil
import socket
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image
from tiny_runs import CLASSES, files_in

import nonlocalseg as nls
from nonlocalseg import images, progress
from nonlocalseg.cli import find_verb, main
from nonlocalseg.data.annotations import FORMATS, WRITTEN
from nonlocalseg.data.folder import Folder
from nonlocalseg.inference import predictor
from nonlocalseg.inference.photographs import find_photographs
from nonlocalseg.lock import LOCK, alone_in
from nonlocalseg.values import options_of
from nonlocalseg.view import View


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


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
    (source / "notes.txt").write_text("nothing")

    assert main(["predict", str(trained[1]), str(source), "--out", str(out), "--probabilities"]) == 1

    shown = capsys.readouterr()
    first, second = shown.err.splitlines()
    assert first == f"left out, no images by their names: {source / 'notes.txt'}"
    assert second.startswith("error: ")
    assert "broken.png" in second
    assert "6 of 7 images" in shown.out
    names = {"plain.jpg", "grey.png", "alpha.png", "deep/cmyk.jpg", "deep/er/sixteen.png", "turned.jpg"}
    expected = {f"{kind}/{name}.png" for kind in ("index", "colour", "overlay") for name in names}
    tables = {"areas.csv", "manifest.csv"}
    assert set(files_in(out)) == expected | {f"probabilities/{name}.npz" for name in names} | tables
    with (out / "areas.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["image"] for row in rows} == names
    for name in names:
        own = [row for row in rows if row["image"] == name]
        assert sum(int(row["pixels"]) for row in own) == 48 * 64
        assert sum(float(row["share"]) for row in own) == pytest.approx(1)
        assert {row["class"] for row in own} <= set(CLASSES)
    accounted = rows_of(out)
    assert sorted(row["input"] for row in accounted) == sorted(map(str, source.rglob("*.[pj]*g")))
    assert [row["input"] for row in accounted if row["status"] == "failed"] == [str(source / "broken.png")]
    assert {row["output"] for row in accounted} == {"", *(f"index/{name}.png" for name in names)}
    assert Image.open(out / "index/turned.jpg.png").size == (48, 64)
    mask = nls.predict(model, source / "deep/cmyk.jpg").mask.numpy()
    index = Image.open(out / "index/deep/cmyk.jpg.png")
    assert index.mode == "P"
    assert np.array_equal(np.array(index), mask)
    assert np.array_equal(np.array(index.convert("RGB")), images.read_image(out / "colour/deep/cmyk.jpg.png"))
    assert images.read_image(out / "overlay/plain.jpg.png").shape == (48, 64, 3)
    with np.load(out / "probabilities/deep/cmyk.jpg.npz") as stored:
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
        nls.from_pretrained(trained[1]),
        photo,
        View(mode="slide", crop=(32, 48), stride=(0.5, 0.5), scales=(0.75, 1), flip=True, average="logits"),
    )
    with np.load(tmp_path / "probabilities/1.png.npz") as stored:
        assert np.allclose(stored["probabilities"], expected.probabilities.numpy(), atol=1e-6)


def test_too_small_photographs_are_reported_by_name(capsys, trained, tmp_path):
    images.write_image(tmp_path / "small.png", np.zeros((8, 8, 3), np.uint8))
    images.write_image(tmp_path / "well.png", np.zeros((32, 32, 3), np.uint8))
    assert main(["predict", str(trained[1]), str(tmp_path / "*.png"), "--out", str(tmp_path / "out")]) == 1
    assert "small.png: images must be at least 16x16" in capsys.readouterr().err
    assert (tmp_path / "out/index/well.png.png").is_file()


def names_of(tmp_path, *paths: str) -> list[str]:
    return list(find_photographs([str(tmp_path / path) for path in paths], tmp_path / "out").names.values())


def test_names_depend_on_nothing_that_lies_beside(tmp_path):
    for name in ("a/x.jpg", "a/deep/x.jpg", "b/x.png", "b/y.v2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        images.write_image(tmp_path / name, np.zeros((2, 2, 3), np.uint8))
    assert names_of(tmp_path, "a") == ["deep/x.jpg", "x.jpg"]
    assert names_of(tmp_path, "a/x.jpg") == names_of(tmp_path, "a/*.jpg") == ["x.jpg"]
    assert names_of(tmp_path, "b") == ["x.png", "y.v2.png"]
    assert names_of(tmp_path, "*/y.*") == ["b/y.v2.png"]
    assert names_of(tmp_path, "a", "b") == ["a/deep/x.jpg", "a/x.jpg", "b/x.png", "b/y.v2.png"]
    assert names_of(tmp_path, "b/../a/x.jpg", "b/x.png", "b/x.png") == ["a/x.jpg", "b/x.png"]
    images.write_image(tmp_path / "a/x.png", np.zeros((2, 2, 3), np.uint8))
    assert names_of(tmp_path, "a") == ["deep/x.jpg", "x.jpg", "x.png"]
    with pytest.raises(FileNotFoundError, match=r"\*\.webp: no such file, folder or pattern match"):
        names_of(tmp_path, "*.webp")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: no images here; expected one of .*\.avif"):
        names_of(tmp_path, "empty")


def test_earlier_pictures_are_never_labelled(capsys, trained, tmp_path, monkeypatch):
    """With the default --out, in the folder of the photographs, and after the pictures have been moved."""
    monkeypatch.chdir(tmp_path)
    images.write_image(tmp_path / "a.png", np.zeros((32, 32, 3), np.uint8))
    assert main(["predict", str(trained[1]), "."]) == 0
    (tmp_path / "predictions/overlay").rename(tmp_path / "kept")
    before = set(files_in(tmp_path))
    capsys.readouterr()
    assert main(["predict", str(trained[1]), "."]) == 0
    shown = capsys.readouterr()
    told = "kept/a.png.png, predictions/colour/a.png.png, predictions/index/a.png.png"
    assert shown.err == f"left out, pictures that an earlier prediction wrote: {told}\n"
    assert "1 of 1 images labelled, in predictions" in shown.out
    assert set(files_in(tmp_path)) == before | {"predictions/overlay/a.png.png"}
    assert main(["predict", str(trained[1]), "kept"]) == 2
    assert "only pictures that an earlier prediction wrote" in capsys.readouterr().err


def test_errors_of_one_photograph_do_not_end_the_batch(capsys, trained, tmp_path, monkeypatch):
    for name in "abcd":
        images.write_image(tmp_path / f"in/{name}.png", np.full((32, 32, 3), ord(name), np.uint8))
    plain = predictor.predict
    errors = {
        ord("a"): RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"),
        ord("b"): MemoryError(),
        ord("c"): ZeroDivisionError("division by zero"),
    }

    def sometimes(network, image, *anything, **options):
        if error := errors.get(int(images.read_image(image)[0, 0, 0])):
            raise error
        return plain(network, image, *anything, **options)

    monkeypatch.setattr(predictor, "predict", sometimes)
    assert main(["predict", str(trained[1]), str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 1
    first, second, third = capsys.readouterr().err.splitlines()
    for name, line in (("a", first), ("b", second)):
        assert line.startswith(f"error: {tmp_path}/in/{name}.png: memory is full: ")
        assert "--mode slide --crop N or --short-side N" in line
    assert third.startswith(f"error: {tmp_path}/in/c.png: internal error: ZeroDivisionError")
    statuses = {Path(row["input"]).name: row["status"] for row in rows_of(tmp_path / "out")}
    assert statuses == {"a.png": "failed", "b.png": "failed", "c.png": "failed", "d.png": "done"}
    assert (tmp_path / "out/index/d.png.png").is_file()
    monkeypatch.undo()
    assert main(["predict", str(trained[1]), str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--legend"]) == 0
    assert [row["status"] for row in rows_of(tmp_path / "out")] == ["done"] * 4
    assert images.read_image(tmp_path / "out/overlay/a.png.png").shape[1] > 32


def test_far_larger_photographs_are_noted_once(capsys, trained, tmp_path):
    for name, size in (("a", (96, 100)), ("b", (97, 120)), ("c", (97, 120))):
        images.write_image(tmp_path / f"{name}.png", np.zeros((*size, 3), np.uint8))
    words = ["predict", str(trained[1]), str(tmp_path), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "note: b.png has 120x97 pixels, and the model was trained on crops of 64x48; --short-side 48"
    )
    assert main([*words, "--short-side", "48"]) == 0
    assert "note" not in capsys.readouterr().err


def test_progress_is_told_where_there_is_no_terminal(capsys, monkeypatch):
    monkeypatch.setattr(progress, "PAUSE", 0.0)
    assert list(progress.track("abc", "reading")) == ["a", "b", "c"]
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("reading: 1 of 3, about ")
    assert len(lines) == 3
    assert list(progress.track(iter("ab"), "reading")) == ["a", "b"]
    assert capsys.readouterr().err.splitlines() == ["reading: 1", "reading: 2"]
    assert list(progress.track("abc", "reading", quiet=True)) == ["a", "b", "c"]
    monkeypatch.setattr(progress, "PAUSE", 10.0)
    assert list(progress.track("abc", "reading")) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


def test_annotations_for_labelling_tools(trained, tmp_path, mistake):
    """What each tool imports is the label images, read again by the folder data set; also what an earlier call labelled."""
    photographs, out = tmp_path / "in", tmp_path / "out"
    shutil.copytree(trained[0] / "images/val", photographs / "a b")
    words = ["predict", str(trained[1]), str(photographs), "--out", str(out)]
    assert main(words) == 0
    (photographs / "broken.png").write_bytes(b"\x89PNG nothing")
    assert main([*words, "--format", *FORMATS]) == 1
    assert all((out / path).exists() for path in WRITTEN)
    assert find_photographs([str(tmp_path)], out).foreign == []
    shutil.copytree(photographs, out / "images")
    for kind in FORMATS:
        for path in WRITTEN:
            shutil.rmtree(out / path) if (out / path).is_dir() else (out / path).unlink(missing_ok=True)
        assert main([*words, "--format", kind]) == 1
        data = Folder(out, "all")
        assert [pair.name for pair in data.pairs] == ["a b__0", "a b__1"]
        for index, pair in enumerate(data.pairs):
            written = images.read_mask(out / "index" / "a b" / f"{pair.image.name}.png")
            np.testing.assert_array_equal(np.array(data.classes)[data.read(index)[1]], np.array(CLASSES)[written])
    assert "'cvatt' is unknown; did you mean" in mistake(*words, "--format", "cvatt")
    (photographs / "odd\x07.png").write_bytes(b"")
    assert "'odd\\x07.png' cannot stand in a file of annotations" in mistake(*words, "--format", "cvat")


def test_the_verb_offers_every_format():
    option = options_of(find_verb("predict").own)["format"]
    assert set(get_args(get_args(option.kind)[0])[0].__args__) == set(FORMATS)


def test_a_folder_that_another_call_writes_to_is_refused(capsys, trained, tmp_path):
    photo, out = str(trained[0] / "images/val/0.png"), tmp_path / "out"
    with alone_in(out):
        assert main(["predict", str(trained[1]), photo, "--out", str(out)]) == 2
        assert files_in(out).keys() == {LOCK}
    told = capsys.readouterr().err.splitlines()
    assert told == [
        f"error: {out} is being written by another run (process {os.getpid()} on {socket.gethostname()}): wait for it, "
        "or choose another --out"
    ]
    assert main(["predict", str(trained[1]), photo, "--out", str(out)]) == 0
    assert LOCK not in files_in(out)


def test_what_a_killed_call_left_beside_pictures_is_swept(trained, tmp_path):
    photo, out = str(trained[0] / "images/val/0.png"), tmp_path / "out"
    (out / "overlay/deep").mkdir(parents=True)
    (out / "overlay/deep/.0.png.0123456789abcdef.png").write_bytes(b"half")
    (out / "overlay/deep/.mine.png").write_bytes(b"whole")
    assert main(["predict", str(trained[1]), photo, "--out", str(out)]) == 0
    assert [path.name for path in (out / "overlay/deep").iterdir()] == [".mine.png"]
