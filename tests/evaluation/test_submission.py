"""Zip files for the servers: ids, names and sizes, read back; every way in which one can be wrong."""

from __future__ import annotations

import importlib
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from nonlocalseg import images
from nonlocalseg.data.ade20k import ADE20K
from nonlocalseg.data.cityscapes import Cityscapes
from nonlocalseg.evaluation.submission import check_zip, submit
from nonlocalseg.metrics import confusion_matrix, scores

IDS = (7, 8, 11)


class ByBrightness(nn.Module):
    """Class c where the red channel is c."""

    def __init__(self, classes: tuple[str, ...]) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        wanted = (image[:, :1] * 255).round()  # [B, 1, H, W]
        return {"out": -(wanted - torch.arange(len(self.classes)).view(1, -1, 1, 1)).abs()}


def red(path: Path, values: np.ndarray) -> None:
    images.write_image(path, np.stack([values, values, values], axis=-1).astype(np.uint8))


@pytest.fixture
def cityscapes(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for split, name in (("test", "berlin_000000_000019"), ("test", "bonn_000003_000019"), ("val", "ulm_000000_000019")):
        city = name.split("_")[0]
        truth = generator.integers(0, 19, (17, 21))
        truth.reshape(-1)[:19] = range(19)
        red(tmp_path / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", truth)
        truth = np.where(generator.random((17, 21)) < 0.3, generator.integers(0, 19, (17, 21)), truth)
        ids = np.array([*Cityscapes.label_ids, 3])[np.where(generator.random((17, 21)) < 0.1, 19, truth)]
        images.write_mask(tmp_path / "gtFine" / split / city / f"{name}_gtFine_labelIds.png", ids)
    return tmp_path


def test_a_named_setting(cityscapes: Path, tmp_path: Path) -> None:
    """It is the view of that name, alone; mistakes are told before anything is read."""
    out, options = tmp_path / "results.zip", {"root": cityscapes, "device": "cpu", "progress": False}
    model = Listening(Cityscapes.classes).eval()
    submit("cityscapes", model, out, setting="mmseg-ade20k", **options)
    assert set(model.sizes) == {(512, 632)}  # 17 x 21 at a shorter side of 512
    for given, words in (
        ({"setting": "mmseg-ade2k"}, "unknown inference setting 'mmseg-ade2k': did you mean 'mmseg-ade20k'"),
        ({"setting": "gald-crop", "flip": True}, "--setting gald-crop fixes --flip: give one of the two"),
    ):
        with pytest.raises(ValueError, match=words):
            submit("cityscapes", "no such model", out, **{**options, **given})


class Listening(ByBrightness):
    def __init__(self, classes: tuple[str, ...]) -> None:
        super().__init__(classes)
        self.sizes: list[tuple[int, int]] = []

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        self.sizes.append((image.shape[2], image.shape[3]))
        return super().forward(image)


def test_cityscapes(cityscapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "results.zip"
    result = submit("cityscapes", ByBrightness(Cityscapes.classes), out, root=cityscapes, device="cpu", progress=False)
    assert (result.file, result.images, result.miou) == (out, 2, None)
    with zipfile.ZipFile(out) as archive:
        assert sorted(archive.namelist()) == [
            "berlin_000000_000019_gtFine_labelIds.png",
            "bonn_000003_000019_gtFine_labelIds.png",
        ]
        with Image.open(io.BytesIO(archive.read("berlin_000000_000019_gtFine_labelIds.png"))) as picture:
            assert picture.mode == "L"
            found = np.array(picture)
    shown = images.read_image(cityscapes / "leftImg8bit" / "test" / "berlin" / "berlin_000000_000019_leftImg8bit.png")
    np.testing.assert_array_equal(found, np.array(Cityscapes.label_ids)[shown[..., 0]])  # label ids, not train ids


def test_ade20k(tmp_path: Path) -> None:
    label = np.arange(150).reshape(10, 15)
    red(tmp_path / "release_test" / "testing" / "ADE_test_00000001.jpg", np.zeros((20, 16)))
    (tmp_path / "ADEChallengeData2016").mkdir()
    images.write_image(
        tmp_path / "release_test" / "testing" / "ADE_test_00000002.png", np.stack([label] * 3, -1).astype(np.uint8)
    )
    out = tmp_path / "results.zip"
    submit("ade20k", ByBrightness(ADE20K.classes), out, root=tmp_path, device="cpu", progress=False)
    with zipfile.ZipFile(out) as archive:
        assert archive.namelist() == ["ADE_test_00000001.png", "ADE_test_00000002.png"]
        with Image.open(io.BytesIO(archive.read("ADE_test_00000002.png"))) as picture:
            np.testing.assert_array_equal(np.array(picture), label + 1)  # 1..150


def write_zip(path: Path, **changes: bytes | None) -> None:
    def png(mode: str, size: tuple[int, int], value: int) -> bytes:
        buffer = io.BytesIO()
        Image.new(mode, size, value).save(buffer, "PNG")
        return buffer.getvalue()

    content = {"a.png": png("L", (4, 3), 7), "b.png": png("L", (5, 3), 11), **changes}
    wrong = {b"mode": png("P", (4, 3), 7), b"size": png("L", (3, 4), 7), b"value": png("L", (4, 3), 0)}
    if kind := content.pop("wrong", None):
        content["a.png"] = wrong[kind]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            if data is not None:
                archive.writestr(name, data)


def test_check_zip(tmp_path: Path) -> None:
    path, sizes = tmp_path / "x.zip", {"a.png": (4, 3), "b.png": (5, 3)}
    write_zip(path)
    check_zip(path, sizes, IDS)
    with pytest.raises(ValueError, match="larger than the 0 MB"):
        check_zip(path, sizes, IDS, max_bytes=10)
    for changes, message in (
        ({"b.png": None}, "b.png is missing"),
        ({"c.png": b""}, "c.png is not expected"),
        ({"wrong": b"mode"}, r"a.png: is P, expected 8-bit grey"),
        ({"wrong": b"size"}, r"a.png: is \(3, 4\), expected \(4, 3\)"),
        ({"wrong": b"value"}, r"a.png: holds 0, which is no label id"),
    ):
        write_zip(path, **changes)
        with pytest.raises(ValueError, match=message):
            check_zip(path, sizes, IDS)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match="a damaged zip file"):
        check_zip(path, sizes, IDS)


def test_mistakes_leave_no_file(cityscapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.zip"
    for model, message in (
        (ByBrightness(Cityscapes.classes[:11]), "the model predicts 11 classes and cityscapes has 19"),
        (ByBrightness(Cityscapes.classes[::-1]), "in another order"),
    ):
        with pytest.raises(ValueError, match=message):
            submit("cityscapes", model, out, root=cityscapes, device="cpu", progress=False)
    model: Any = ByBrightness(Cityscapes.classes)
    wrong: Any = "cityscape"
    with pytest.raises(ValueError, match="unknown benchmark 'cityscape': did you mean 'cityscapes'"):
        submit(wrong, model, out, root=cityscapes)
    with pytest.raises(ValueError, match=r"a name that ends in \.zip"):
        submit("cityscapes", model, tmp_path / "results", root=cityscapes)
    with pytest.raises(FileNotFoundError, match=r"leftImg8bit/test: missing"):
        submit("cityscapes", model, out, root=tmp_path / "gtFine")
    with pytest.raises(ValueError, match="crop: mode slide needs"):
        submit("cityscapes", model, out, root=cityscapes, mode="slide")
    assert not out.exists()


def test_official_score(cityscapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "val.zip"
    result = submit(
        "cityscapes", ByBrightness(Cityscapes.classes), out, root=cityscapes, split="val", device="cpu", progress=False
    )
    data = Cityscapes(cityscapes, "val")
    if result.miou is None:
        with pytest.raises(ImportError):
            importlib.import_module("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
        pytest.skip("cityscapesScripts is not installed")
    image, label = data.read(0)
    assert label is not None
    found = scores(confusion_matrix(torch.from_numpy(image[..., 0]).long(), torch.from_numpy(label).long(), 19))
    assert result.miou == pytest.approx(found.mean_iou, abs=1e-9)
    assert 0.3 < found.mean_iou < 0.9
