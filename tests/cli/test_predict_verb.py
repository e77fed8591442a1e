"""What `predict` leaves behind: which pictures, of which photographs, under which names."""

from __future__ import annotations

import numpy as np
from PIL import Image
from tiny_runs import CLASSES, files_in

import nonlocalseg as nls
from nonlocalseg import images
from nonlocalseg.cli import main
from nonlocalseg.cli.prediction import named_images
from nonlocalseg.view import View


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
        nls.from_pretrained(trained[1]),
        photo,
        View(mode="slide", crop=(32, 48), stride=(0.5, 0.5), scales=(0.75, 1), flip=True, average="logits"),
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
