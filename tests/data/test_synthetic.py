"""The drawn scenes: repeatable, exact, and with the cue out of reach of everything local."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from nonlocalseg.data import synthetic
from nonlocalseg.data.synthetic import FAR, LOCAL, SIGNAL, Synthetic, draw_scene


def test_same_scene_from_same_numbers() -> None:
    image, label = Synthetic(split="val", seed=3).read(5)
    again, same = Synthetic(split="val", seed=3, length=9).read(5)
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(label, same)
    for other in (Synthetic(split="train", seed=3), Synthetic(split="val", seed=4)):
        assert (other.read(5)[0] != image).any()
    assert (Synthetic(split="val", seed=3).read(4)[0] != image).any()


@pytest.mark.parametrize("size", [synthetic.DEFAULT_SIZE, (64, 256), (192, 384), (97, 131), (128, 128), (48, 800)])
def test_fields_are_half_the_width_away_from_the_signal(size: tuple[int, int]) -> None:
    data = Synthetic(size=size, length=20)
    for index in range(len(data)):
        image, label = data.read(index)
        assert image.shape == (*size, 3)
        assert label.shape == size
        assert (label == SIGNAL).any()
        assert np.isin(label, FAR).any()
        distance = distance_transform_edt(label != SIGNAL)
        assert isinstance(distance, np.ndarray)
        assert distance[np.isin(label, FAR)].min() >= size[1] / 2
    assert synthetic.DEFAULT_SIZE[1] / 2 == synthetic.MINIMUM_CUE_DISTANCE


def test_only_the_lamps_tell_the_readings_apart() -> None:
    scenes = {}
    for blue in (synthetic.WATER, synthetic.ICE):
        for green in (synthetic.GRASS, synthetic.CROP):
            scenes[blue, green] = draw_scene(np.random.default_rng(1), 96, 512, (blue, green))
    first, label = scenes[synthetic.WATER, synthetic.GRASS]
    for (blue, green), (image, other) in scenes.items():
        changed = (image != first).any(-1)
        assert (label[changed] == SIGNAL).all()
        assert changed.any() == ((blue, green) != (synthetic.WATER, synthetic.GRASS))
        np.testing.assert_array_equal(other == blue, label == synthetic.WATER)
        np.testing.assert_array_equal(other == green, label == synthetic.GRASS)


def test_classes_are_all_there_and_readings_balanced() -> None:
    data = Synthetic(length=100)
    counts = np.stack([np.bincount(data.read(index)[1].reshape(-1), minlength=9) for index in range(100)])
    assert len(data.classes) == len(data.palette) == counts.shape[1] == 9
    assert sorted(LOCAL + FAR) == list(range(9))
    shares = counts.sum(0) / counts.sum()
    assert (shares > 0.003).all()
    assert shares[synthetic.POLE] < 0.03
    assert shares[synthetic.DISC] < 0.02
    present = (counts > 0).mean(0)
    assert (present[list(FAR)] > 0.3).all()
    assert (present[list(FAR)] < 0.7).all()


def test_lengths_and_wrong_options() -> None:
    assert len(Synthetic(split="test", length=7)) == 7
    assert Synthetic(split="test").name(3) == "test_00003"
    with pytest.raises(IndexError, match="scene 2 of 2"):
        Synthetic(split="val", length=2)[2]
    with pytest.raises(ValueError, match="at least 48 and 96"):
        Synthetic(size=(32, 512))
    with pytest.raises(ValueError, match="length: 0; give 1 or more"):
        Synthetic(length=0)
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        Synthetic(split="dev")
