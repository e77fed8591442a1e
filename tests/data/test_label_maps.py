"""What stored values and colours mean, and what is said of those that mean nothing."""

from __future__ import annotations

import numpy as np
import pytest

from nonlocalseg.data.label_maps import EitherMap, LabelError, LabelMap


def test_label_map_of_values_and_colours() -> None:
    values = LabelMap({0: 255, 7: 0, 300: 1})
    assert values(np.array([[0, 7, 300]], np.int32)).tolist() == [[255, 0, 1]]
    with pytest.raises(LabelError) as error:
        values(np.array([[8, 8, 9, 60000]], np.int32))
    assert error.value.counts == {8: 2, 9: 1, 60000: 1}
    colours = LabelMap({(0, 0, 0): 255, (255, 128, 0): 0})
    assert colours(np.array([[[0, 0, 0], [255, 128, 0]]], np.uint8)).tolist() == [[255, 0]]
    with pytest.raises(LabelError, match="colour #0000ff in 2 pixels"):
        colours(np.array([[[0, 0, 255], [0, 0, 255]]], np.uint8))
    with pytest.raises(LabelError, match="holds single values where the class map expects RGB colours"):
        colours(np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match="not both"):
        LabelMap({0: 0, (1, 2, 3): 1})
    with pytest.raises(ValueError, match="class indices go from 0 to 253"):
        LabelMap({0: 254})


def test_either_values_or_colours() -> None:
    either = EitherMap(LabelMap({7: 1}), LabelMap({(255, 128, 0): 0}))
    assert either(np.array([[7, 7]], np.uint8)).tolist() == [[1, 1]]
    assert either(np.array([[[255, 128, 0]]], np.uint8)).tolist() == [[0]]
    with pytest.raises(LabelError, match="value 8 in 1 pixels"):
        either(np.array([[8]], np.uint8))
