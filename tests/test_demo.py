"""run_demo(): what it leaves behind, what it says of reach and distance, and (slow) how far ann is above fcn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

import nonlocalseg as nls
from nonlocalseg.data import synthetic
from nonlocalseg.data.synthetic import FAR, LOCAL, Synthetic
from nonlocalseg.demo import DemoResult, cue_distance, reach, run_demo

SEEDS = (0, 1, 2)


@pytest.fixture
def few_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    for split, length in {"train": 4, "val": 1, "test": 6}.items():
        monkeypatch.setitem(synthetic.LENGTHS, split, length)


@pytest.mark.usefixtures("few_scenes")
def test_demo_leaves_models_pictures_and_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    folder = tmp_path / "demo"
    compared = run_demo(folder, steps=1)
    assert compared.folder == folder
    for name in ("fcn", "ann"):
        model = nls.from_pretrained(folder / name / "best")
        assert model.classes == Synthetic.classes
        report = json.loads((folder / "metrics.json").read_text())["models"][name]
        assert report["mean_iou"] == compared.results[name].scores.mean_iou
        assert report["local_miou"] == pytest.approx(np.mean([report["classes"][k]["iou"] for k in LOCAL]))
    montage = np.array(Image.open(folder / "montage.png"))
    assert montage.shape[0] > 6 * 72  # 64x256, four in a row of at most 1,000 pixels or 288 each
    assert montage.shape[1] > 4 * 288
    for index in range(6):
        scene = np.array(Image.open(folder / "scenes" / f"test_{index:05d}.png"))
        np.testing.assert_array_equal(scene, Synthetic(split="test", size=(64, 256)).read(index)[0])
    assert Image.open(folder / "curves.png").width > 1500
    printed = capsys.readouterr().out
    for name in (*Synthetic.classes, f"at least {compared.distance} pixels", f"at most {compared.reach} pixels"):
        assert name in printed
    assert f"nonlocalseg predict {folder / 'ann'} {folder / 'scenes'}" in printed


@pytest.mark.usefixtures("few_scenes")
def test_an_older_demo_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nonlocalseg.demo.train", _stop)
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "notes.txt").write_text("mine")
    for expected in ("demo-2", "demo-3"):
        with pytest.raises(_Stopped, match=f"{expected}/fcn"):
            run_demo(tmp_path / "demo", progress=False)
    assert [path.name for path in (tmp_path / "demo").iterdir()] == ["notes.txt"]
    with pytest.raises(ValueError, match=r"notes.txt is a file: choose another --out"):
        run_demo(tmp_path / "demo" / "notes.txt", progress=False)


def test_reach_is_the_receptive_field() -> None:
    """7 taps at stride 2, then 3 taps at dilation 4: 3 + 2 * 4 pixels, and up to 2 more for the upsampling."""
    first, second = nn.Conv2d(3, 4, 7, 2, 3), nn.Conv2d(4, 4, 3, padding=4, dilation=4)
    assert 3 <= reach(_Convolutional(first), (16, 32)) <= 3 + 2
    assert 3 + 8 <= reach(_Convolutional(first, second), (16, 32)) <= 3 + 8 + 2


def test_distance_is_that_of_the_nearest_field() -> None:
    for size in ((64, 256), (96, 512)):
        found = cue_distance(Synthetic(split="test", size=size, length=12))
        assert size[1] / 2 <= found < size[1]
    assert cue_distance(_TwoScenes()) == 7


@pytest.mark.slow
def test_ann_is_above_fcn_because_the_cue_is_far(tmp_path: Path) -> None:
    found: list[DemoResult] = [run_demo(tmp_path / f"seed-{seed}", seed=seed) for seed in SEEDS]
    print("\nseed   fcn   ann  difference   local: fcn   ann   far: fcn   ann   seconds: fcn   ann")
    for seed, one in zip(SEEDS, found, strict=True):
        means = [100 * one.mean(name, classes) for classes in (range(9), LOCAL, FAR) for name in ("fcn", "ann")]
        seconds = [one.seconds[name] for name in ("fcn", "ann")]
        print(
            "{:4}  {:4.1f}  {:4.1f}  {:10.1f}  {:11.1f}  {:4.1f}  {:9.1f}  {:4.1f}  {:13.0f}  {:4.0f}".format(
                seed, *means[:2], 100 * one.difference, *means[2:], *seconds
            )
        )
    assert np.mean([one.difference for one in found]) > MARGIN
    for one in found:
        assert one.reach < one.distance
        assert one.mean("fcn", LOCAL) > 0.6
        assert abs(one.mean("ann", LOCAL) - one.mean("fcn", LOCAL)) < 0.1


MARGIN = 0.10


class _Convolutional(nn.Module):
    """A network of nothing but `body`, its output brought to the image's size."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"out": functional.interpolate(self.body(images), images.shape[-2:], mode="bilinear")}


class _Stopped(Exception):
    pass


def _stop(recipe: str, *, out: Path, **options: object) -> None:
    out.mkdir(parents=True)
    raise _Stopped(str(out))


class _TwoScenes(Synthetic):
    """The signal in column 2, or in column 19; the fields in columns 10 to 12."""

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        label = np.zeros((48, 96), np.uint8)
        label[5, 2 if index == 0 else 19] = synthetic.SIGNAL
        label[20:30, 10:13] = synthetic.WATER
        return np.zeros((48, 96, 3), np.uint8), label

    def __init__(self) -> None:
        super().__init__(size=(48, 96), length=2)
