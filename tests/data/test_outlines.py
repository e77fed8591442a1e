"""Masks as polygons and back."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from nonlocalseg.data.outlines import fill_rings, trace_outlines

PICTURES = {
    "nothing": ["...", "..."],
    "one pixel": ["#"],
    "everything": ["###", "###"],
    "a hole": ["###", "#.#", "###"],
    "an island in a hole": ["#####", "#...#", "#.#.#", "#...#", "#####"],
    "corners that touch": ["#.#", ".#.", "#.#"],
    "holes whose corners touch": ["####", "#.##", "##.#", "####"],
    "a hole that touches the outside by a corner": [".###", "##.#", "#.##", "####"],
    "two rows apart": ["#..", "...", "..#"],
}


def drawn(rows: list[str]) -> np.ndarray:
    return np.array([[sign == "#" for sign in row] for row in rows])


def area(ring: list[tuple[int, int]]) -> float:
    x, y = np.array(ring, float).T
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) / 2)


def check(mask: np.ndarray) -> None:
    polygons = trace_outlines(mask)
    regions, count = ndimage.label(mask)
    assert len(polygons) == count
    for number, polygon in enumerate(polygons, 1):
        found = fill_rings([np.array(ring, float) for ring in polygon], (mask.shape[0], mask.shape[1]))
        np.testing.assert_array_equal(found, regions == number)
        outline, *holes = polygon
        assert area(outline) > 0
        assert all(area(hole) < 0 for hole in holes)
        assert sum(map(area, polygon)) == found.sum()
        assert all(len(set(ring)) == len(ring) for ring in polygon)
        for ring in polygon:  # each side along an axis, each corner a turn
            sides = np.sign(np.roll(ring, -1, axis=0) - np.array(ring))
            assert (abs(sides).sum(1) == 1).all()
            assert (sides * np.roll(sides, 1, axis=0) == 0).all()


@pytest.mark.parametrize("name", PICTURES)
def test_outlines_are_the_mask(name: str) -> None:
    check(drawn(PICTURES[name]))


def test_outlines_of_any_mask_are_the_mask() -> None:
    random = np.random.default_rng(0)
    for _ in range(100):
        check(random.random(tuple(random.integers(1, 13, 2))) < random.random())


def test_rings_of_a_square_with_a_hole() -> None:
    outline, hole = trace_outlines(drawn(PICTURES["a hole"]))[0]
    assert sorted(outline) == [(0, 0), (0, 3), (3, 0), (3, 3)]
    assert sorted(hole) == [(1, 1), (1, 2), (2, 1), (2, 2)]


def test_rings_beyond_the_image_are_cut() -> None:
    rings = [np.array([[-9.0, -9.0], [50.0, 3.0], [-9.0, 40.0]])]
    found, whole = fill_rings(rings, (5, 7)), fill_rings([rings[0] + 20], (60, 80))
    np.testing.assert_array_equal(found, whole[20:25, 20:27])
    assert found.any()
    assert not fill_rings([np.array([[50.0, 50.0], [60.0, 50.0], [60.0, 60.0]])], (5, 7)).any()
    assert not fill_rings([], (5, 7)).any()
