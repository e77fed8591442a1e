"""What predict() takes, what can be made of a prediction, and that a lent model is never changed."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_models import small
from torch import Tensor, nn

import nonlocalseg as nls
from nonlocalseg import drawing, images
from nonlocalseg.inference.borrowed import evaluated, settled_view
from nonlocalseg.inference.predictor import MAKER, predict
from nonlocalseg.labels import default_palette
from nonlocalseg.view import VIEWS, View

CLASSES, PALETTE = ("road", "sky", "car"), ((10, 0, 0), (20, 0, 0), (30, 0, 0))


class Shaky(nn.Module):
    """Batch norm and dropout, which in training mode change its answer and itself."""

    classes, palette = CLASSES, PALETTE

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.drop = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Dropout2d(0.5)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"out": self.drop(self.norm(self.conv(images)))}


def picture(seed: int = 0, size: tuple[int, int] = (20, 30)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


# --- What it takes ----------------------------------------------------------------------------------------------


def test_files_pictures_and_arrays_are_the_same(tmp_path):
    model, array = Shaky().eval(), picture()
    images.write_image(tmp_path / "a.png", array)
    expected = predict(model, array)
    turned = Image.fromarray(np.rot90(array))
    exif = turned.getexif()
    exif[274] = 6
    turned.info["exif"] = exif.tobytes()
    for given in (str(tmp_path / "a.png"), tmp_path / "a.png", Image.fromarray(array), turned):
        assert torch.equal(predict(model, given).mask, expected.mask)
    assert np.array_equal(expected.image, array)
    with pytest.raises(ValueError, match=r"^image: float64 .*a picture of Pillow's"):
        predict(model, array / 255)
    with pytest.raises(ValueError, match=r"^image: dict; give a path"):
        predict(model, {})  # pyright: ignore[reportCallIssue, reportArgumentType]  # what the test is about


def test_a_list_gives_a_list(tmp_path):
    model = Shaky().eval()
    images.write_image(tmp_path / "a.png", picture(1))
    found = predict(model, [picture(0), tmp_path / "a.png"], flip=True)
    assert [one.name for one in found] == ["image-1", "a.png"]
    for one, seed in zip(found, (0, 1), strict=True):
        alone = predict(model, picture(seed), flip=True)
        assert torch.equal(one.mask, alone.mask)
        assert torch.equal(one.probabilities, alone.probabilities)
    assert predict(model, ()) == []


def test_a_model_by_its_folder(tmp_path):
    model = small("fcn")
    model.config = replace(model.config, view=View(scales=(0.5, 1.0)))
    model.save_pretrained(tmp_path / "run/best")
    array = picture(size=(40, 50))
    found = nls.predict(tmp_path / "run", array, device="cpu")
    expected = nls.predict(model.eval(), array, scales=(0.5, 1.0))
    torch.testing.assert_close(found.probabilities, expected.probabilities)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        nls.predict(tmp_path / "nowhere", array)


# --- Which view counts ------------------------------------------------------------------------------------------


def test_the_models_view_counts_unless_another_is_given():
    model, array = Shaky().eval(), picture(size=(60, 80))
    model.view = View(mode="slide", crop=(32, 32), stride=(16, 16), flip=True)
    own = predict(model, array).probabilities
    assert torch.equal(own, predict(Shaky().eval(), array, model.view).probabilities)
    single = predict(model, array, flip=False).probabilities
    assert torch.equal(single, predict(Shaky().eval(), array, replace(model.view, flip=False)).probabilities)
    assert not torch.equal(own, single)
    whole = predict(model, array, mode="whole", flip=False)  # its windows go with the mode
    assert torch.equal(whole.probabilities, predict(Shaky().eval(), array).probabilities)
    assert torch.equal(predict(model, array, View()).mask, whole.mask)
    named = predict(model, array, setting="gald-multi-scale").probabilities
    assert torch.equal(named, predict(Shaky().eval(), array, setting="gald-multi-scale").probabilities)


def test_precedence():
    model = small("fcn")
    model.config = replace(model.config, view=View(mode="slide", crop=(64, 64), small="pad", short_side=32))
    view = model.config.view
    assert settled_view(model, None, None, {}) == view
    assert settled_view(model, None, None, {"crop": 32}) == replace(view, crop=(32, 32))
    assert settled_view(model, None, None, {"mode": "whole"}) == View(short_side=32)
    assert settled_view(model, View(flip=True), None, {"scales": (2.0,)}) == View(flip=True, scales=(2.0,))
    assert settled_view(model, None, "ann-single", {}) == VIEWS["ann-single"].view
    assert settled_view(object(), None, None, {}) == View()
    for view, changes, name in ((None, {"crop": 32}, "crop"), (View(short_side=64), {}, "short-side")):
        with pytest.raises(ValueError, match=f"^--setting ann-single fixes --{name}: give one of the two"):
            settled_view(model, view, "ann-single", changes)


# --- What is made of it -----------------------------------------------------------------------------------------


def test_areas_and_words():
    mask = np.zeros((10, 20), np.uint8)
    mask[:, :4], mask[0, 4:] = 2, 1
    array = np.eye(3, dtype=np.uint8)[mask] * 255
    found = predict(lambda x: 9 * x, array)
    assert [(area.name, area.pixels, area.share) for area in found.areas()] == [
        ("0", 144, 0.72),
        ("2", 40, 0.2),
        ("1", 16, 0.08),
    ]
    model = nn.Identity().eval()
    model.classes, model.palette = CLASSES, PALETTE
    assert repr(predict(model, array)) == "Prediction(image, 20x10: road 72.0 %, car 20.0 %, sky 8.0 %)"


def test_pictures_are_saved(tmp_path):
    model, array = Shaky().eval(), picture()
    images.write_image(tmp_path / "photo.jpg", array)
    found = predict(model, tmp_path / "photo.jpg")
    paths = found.save(tmp_path / "out", probabilities=True)
    names = ("index/photo.jpg.png", "colour/photo.jpg.png", "overlay/photo.jpg.png", "probabilities/photo.jpg.npz")
    assert [path.relative_to(tmp_path / "out").as_posix() for path in paths] == list(names)
    mask = found.mask.numpy()
    index = Image.open(paths[0])
    assert np.array_equal(np.array(index), mask)
    assert np.array_equal(np.array(index.convert("RGB")), drawing.colour(mask, PALETTE))
    assert np.array_equal(images.read_image(paths[1]), drawing.colour(mask, PALETTE))
    assert np.array_equal(images.read_image(paths[2]), drawing.overlay(found.image, mask, PALETTE))
    assert [images.maker_of(path) for path in paths[:3]] == [MAKER] * 3
    with np.load(paths[3]) as stored:
        assert stored["classes"].tolist() == list(CLASSES)
        assert np.array_equal(stored["probabilities"], found.probabilities.numpy())
    assert found.overlay().shape == array.shape  # at its own size
    assert found.overlay(legend=True).shape[1] > array.shape[1]
    other = found.save(tmp_path / "out", "deep/other", legend=True)
    assert other[2] == tmp_path / "out/overlay/deep/other.png"
    assert images.read_image(other[2]).shape[1] > array.shape[1]


def test_a_callable_without_colours_gets_some(tmp_path):
    found = predict(lambda x: x, picture())
    assert (found.classes, found.palette) == ((), ())
    assert np.array_equal(found.overlay(), drawing.overlay(found.image, found.mask.numpy(), default_palette(3)))
    assert found.overlay(legend=True).shape[1] > 30
    assert len(found.save(tmp_path)) == 3


# --- A lent model -----------------------------------------------------------------------------------------------


def test_a_model_in_training_mode_is_never_switched():
    model = Shaky().train()
    model.conv.eval()  # as a frozen part would be
    before = {name: value.clone() for name, value in model.state_dict().items()}
    seen: list[tuple[bool, bool]] = []
    model.register_forward_hook(lambda *_: seen.append((model.training, model.drop.training)))
    first, second = predict(model, picture()), predict(model, picture())
    assert torch.equal(first.probabilities, second.probabilities)  # no dropout
    assert seen == [(True, True)] * 2  # while a copy ran
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert (model.training, model.drop.training, model.conv.training) == (True, True, False)
    expected = Shaky()
    expected.load_state_dict(model.state_dict())
    assert torch.equal(first.mask, predict(expected.eval(), picture()).mask)


def test_the_copy_shares_all_weights():
    model = Shaky().train()
    copied = evaluated(model)
    assert copied is not model
    assert not any(module.training for module in copied.modules())
    for name, tensor in model.state_dict(keep_vars=True).items():
        assert copied.state_dict(keep_vars=True)[name] is tensor
    assert evaluated(model.eval()) is model
    model.train().lock = threading.Lock()
    with pytest.raises(ValueError, match=r"training mode and cannot be copied .*: call model.eval\(\)"):
        predict(model, picture())


def test_four_threads_on_a_model_in_training_mode():
    """A training in the main thread goes on meanwhile: its mode and its statistics are its own."""
    model = small("fcn", output_stride=32).train()
    arrays = [picture(seed, (40, 48)) for seed in range(4)]
    frozen = small("fcn", output_stride=32)
    frozen.load_state_dict(model.state_dict())
    expected = [predict(frozen.eval(), array).mask for array in arrays]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with ThreadPoolExecutor(4) as pool:
        found = [(number, pool.submit(predict, model, arrays[number % 4])) for number in range(16)]
        while not all(future.done() for _, future in found):
            assert all(module.training for module in model.modules())
    assert sum(not torch.equal(future.result().mask, expected[number % 4]) for number, future in found) == 0
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_explaining_leaves_a_model_in_training_mode_alone(tmp_path: Path):
    model = small("ann").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = nls.explain(model, picture(size=(40, 48)), (3, 4))
    assert repr(found) == "Explanation(pixel 3 4 of 48x40: fusion4, context)"
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
