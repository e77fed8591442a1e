"""What stored values and colours mean, and what is said of those that mean nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from colour_distance import ciede2000, smallest_distance

from nonlocalseg.labels import LabelError, LabelMap, default_palette, same
from nonlocalseg.values import from_plain, plain


def test_label_map_of_values_and_colours() -> None:
    values = LabelMap(values={0: 255, 7: 0, 300: 1})
    assert values(np.array([[0, 7, 300]], np.int32)).tolist() == [[255, 0, 1]]
    with pytest.raises(LabelError) as error:
        values(np.array([[8, 8, 9, 60000]], np.int32))
    assert error.value.counts == {8: 2, 9: 1, 60000: 1}
    with pytest.raises(LabelError, match="value -1 in 1 pixels"):
        values(np.array([[-1, 0]], np.int32))
    with pytest.raises(LabelError, match="holds RGB colours where the class map expects single values"):
        values(np.zeros((2, 2, 3), np.uint8))
    colours = LabelMap(colours={(0, 0, 0): 255, (255, 128, 0): 0})
    assert colours(np.array([[[0, 0, 0], [255, 128, 0]]], np.uint8)).tolist() == [[255, 0]]
    with pytest.raises(LabelError, match="colour #0000ff in 2 pixels"):
        colours(np.array([[[0, 0, 255], [0, 0, 255]]], np.uint8))
    with pytest.raises(LabelError, match="holds single values where the class map expects RGB colours"):
        colours(np.zeros((2, 2), np.uint8))


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({}, "at least one value or colour"),
        ({"values": {0: 254}}, "class indices go from 0 to 253"),
        ({"values": {65536: 0}}, "mask values go from 0 to 65535"),
        ({"colours": {(0, 0, 256): 0}}, "three numbers from 0 to 255"),
        ({"colours": {"red": 0}}, "colours"),
    ],
)
def test_label_map_refuses(given: dict[str, dict[object, int]], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        from_plain(LabelMap, given, "here")


def test_either_values_or_colours() -> None:
    either = LabelMap(values={7: 1}, colours={(255, 128, 0): 0})
    assert either(np.array([[7, 7]], np.uint8)).tolist() == [[1, 1]]
    assert either(np.array([[[255, 128, 0]]], np.uint8)).tolist() == [[0]]
    with pytest.raises(LabelError, match="value 8 in 1 pixels"):
        either(np.array([[8]], np.uint8))


def test_label_map_through_json() -> None:
    map_ = LabelMap(values={0: 255, 300: 1}, colours={(255, 128, 0): 0})
    written = json.dumps(plain(map_))
    assert json.loads(written) == {"values": {"0": 255, "300": 1}, "colours": {"#ff8000": 0}}
    assert from_plain(LabelMap, json.loads(written), "here") == map_


def test_labels_stored_as_classes() -> None:
    assert same(2)(np.array([[0, 1, 255]], np.uint8)).tolist() == [[0, 1, 255]]
    with pytest.raises(LabelError, match="value 2 in 1 pixels"):
        same(2)(np.array([[2]], np.uint8))


def test_colour_distance_is_that_of_the_published_pairs() -> None:
    """Rows 1, 7, 13, 17, 20 and 25 of Sharma et al., Table 1, printed to four digits."""
    pairs = [
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 0, 0), (50, -1, 2), 2.3669),
        ((50, -0.0010, 2.4900), (50, 0.0009, -2.4900), 4.8045),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((50, 2.5, 0), (50, 3.1736, 0.5854), 1.0),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ]
    found = ciede2000(np.array([one for one, _, _ in pairs], float), np.array([other for _, other, _ in pairs], float))
    np.testing.assert_allclose(found, [distance for _, _, distance in pairs], atol=6e-5)


@pytest.mark.parametrize(
    ("vision", "of_twenty", "of_forty"),
    [("all cones", 22.5, 9.9), ("protanopia", 11.3, 7.0), ("deuteranopia", 11.3, 7.0), ("tritanopia", 11.3, 7.0)],
)
def test_default_colours_are_told_apart_by_every_eye(vision: str, of_twenty: float, of_forty: float) -> None:
    """Black, which stands for void, counts as one more colour of the first 20."""
    assert smallest_distance([*default_palette(20), (0, 0, 0)], vision) >= of_twenty
    assert smallest_distance(default_palette(40), vision) >= of_forty


def test_every_class_has_a_colour_of_its_own() -> None:
    assert len(set(default_palette(200))) == 200
