"""What a served model says, in every form, against the library's own functions."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from PIL import Image
from serving_models import CLASSES, photograph, served

import nonlocalseg as nls
from nonlocalseg.data.run_lengths import decode
from nonlocalseg.serving import answer
from nonlocalseg.serving.answer import CERTAIN, Answer, answers_of, probabilities_of, runs_json, shares_csv, shrunk
from nonlocalseg.serving.limits import Refused
from nonlocalseg.serving.line import Progress, Stopped
from nonlocalseg.view import View

IMAGE = photograph()


@pytest.fixture(scope="module")
def one() -> Answer:
    return answers_of([served()], IMAGE, Progress())[0]


def test_the_answer_is_that_of_predict(one: Answer) -> None:
    said = nls.predict(one.served.model, IMAGE)
    np.testing.assert_array_equal(one.mask, said.mask.numpy())
    sure = said.probabilities.amax(0).numpy()
    assert np.abs(one.probability / CERTAIN - sure).max() <= 0.5 / CERTAIN + 1e-5
    assert one.mask.dtype == one.probability.dtype == np.uint8


def test_shares(one: Answer) -> None:
    shares, said = one.shares(), nls.predict(one.served.model, IMAGE)
    assert [(s.name, s.pixels, s.share) for s in shares] == [(a.name, a.pixels, a.share) for a in said.areas()]
    sure = said.probabilities.amax(0)
    for share in shares:
        assert share.probability == pytest.approx(float(sure[said.mask == share.number].mean()), abs=2e-3)
        assert bytes.fromhex(share.colour[1:]) == bytes(one.served.palette[share.number])
    rows = list(csv.DictReader(io.StringIO(shares_csv(one).decode())))
    assert [row["class"] for row in rows] == [share.name for share in shares]
    assert sum(int(row["pixels"]) for row in rows) == IMAGE[..., 0].size


def test_pictures(one: Answer) -> None:
    mask = Image.open(io.BytesIO(answer.mask_png(one)))
    assert mask.mode == "P"
    np.testing.assert_array_equal(np.array(mask), one.mask)
    said = nls.predict(one.served.model, IMAGE)
    overlay = np.array(Image.open(io.BytesIO(answer.overlay_png(one, IMAGE, 0.3))))
    np.testing.assert_array_equal(overlay, said.overlay(0.3))


def test_run_lengths_give_the_mask(one: Answer) -> None:
    found = runs_json(one)
    assert (found["height"], found["width"], found["model"]) == (48, 64, "tiny")
    mask = np.full(one.size, 255)
    for part in found["classes"]:
        assert CLASSES[part["id"]] == part["name"]
        mask[decode(part["segmentation"], one.size)] = part["id"]
    np.testing.assert_array_equal(mask, one.mask)


@pytest.mark.parametrize("view", [View(), View(average="logits"), View(scales=(0.75, 1.0), flip=True)], ids=str)
def test_probabilities(view: View) -> None:
    one = served(view=view)
    found = probabilities_of(one, IMAGE, Progress())
    np.testing.assert_allclose(found, nls.predict(one.model, IMAGE, view).probabilities.numpy(), atol=1e-6)
    file = np.load(io.BytesIO(answer.probabilities_npz(found, one.classes)))
    np.testing.assert_array_equal(file["probabilities"], found)
    assert tuple(file["classes"]) == CLASSES


def test_probabilities_that_are_too_large_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer, "MOST_PROBABILITIES", 4 * 3 * 48 * 64 - 1)
    with pytest.raises(Refused, match=r"probabilities of 3 classes .* predict --probabilities"):
        probabilities_of(served(), IMAGE, Progress())


def test_a_large_image_is_seen_in_tiles_or_else_in_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer, "LARGE", 48 * 64 - 1)
    monkeypatch.setattr(answer, "SIDE", 32)
    one, progress = served(), Progress()
    (found,) = answers_of([one], IMAGE, progress)
    assert progress.done == progress.total > 6  # more than one pass over the tiles
    whole = nls.predict(one.model, IMAGE)
    np.testing.assert_array_equal(found.mask, whole.mask.numpy())
    np.testing.assert_allclose(probabilities_of(one, IMAGE, Progress()), whole.probabilities.numpy(), atol=1e-5)
    assert one.view_of((49, 64)).mode == "stream"
    assert served(view=View(short_side=32)).view_of((48, 64)).mode == "whole"
    other, progress = served(model="nonlocal"), Progress()
    (found,) = answers_of([other], IMAGE, progress)
    assert (progress.done, progress.total) == (6, 6)
    slid = nls.predict(other.model, IMAGE, mode="slide", crop=32)
    np.testing.assert_array_equal(found.mask, slid.mask.numpy())
    np.testing.assert_allclose(probabilities_of(other, IMAGE, Progress()), slid.probabilities.numpy(), atol=1e-5)
    assert other.view_of((49, 64)).mode == "slide"


def test_an_image_in_tiles_is_that_of_the_whole() -> None:
    image, progress = photograph(96, 144), Progress()
    (whole,) = answers_of([served()], image, Progress())
    (tiled,) = answers_of([served(view=View(mode="stream", crop=64))], image, progress)
    assert progress.done == progress.total > 1
    assert (tiled.mask == whole.mask).mean() > 0.999
    assert np.abs(tiled.probability.astype(int) - whole.probability).max() <= 1


def test_two_models_are_counted_together_and_stop_between_passes() -> None:
    class Once(Progress):
        def before_pass(self) -> None:
            if self.done == 1:
                self._stop.set()
            super().before_pass()

    progress = Once()
    with pytest.raises(Stopped):
        answers_of([served("a"), served("b", "fcn")], IMAGE, progress)
    assert (progress.done, progress.total) == (1, 2)


def test_shrinking_takes_pixels_as_they_are() -> None:
    array = np.arange(30 * 40).reshape(30, 40)
    assert shrunk(array, 40) is not None
    np.testing.assert_array_equal(shrunk(array, 40), array)
    small = shrunk(array, 20)
    assert small.shape == (15, 20)
    assert set(small.ravel()) <= set(array.ravel())
    assert shrunk(np.zeros((1, 5000, 3), np.uint8), 1000).shape == (1, 1000, 3)


def test_many_classes_need_two_bytes() -> None:
    one = served()
    wide = answer.Served("wide", one.model, one.view, one.device, (*CLASSES, *map(str, range(300))), one.palette * 101)
    (found,) = answers_of([wide], IMAGE, Progress())
    assert found.mask.dtype == np.uint16
    assert Image.open(io.BytesIO(answer.mask_png(found))).mode == "L"  # no palette holds so many
