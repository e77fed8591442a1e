"""Views: every mistake in one line, from Python as from text; pixels and fractions told apart; the named ones."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest

from nonlocalseg.inference.windows import grid_of
from nonlocalseg.values import changed, from_plain, options_of, plain
from nonlocalseg.view import VIEWS, WHOLE, View, find_view


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "tiles"}, "mode: 'tiles' is unknown"),
        ({"mode": "slid"}, "mode: 'slid' is unknown; did you mean 'slide'?"),
        ({"average": "mean"}, "average: 'mean' is unknown"),
        ({"scales": ()}, "scales: empty; give one or more numbers"),
        ({"scales": (1.0, 0)}, "scales: 1.0 0.0; give"),
        ({"scales": (float("nan"),)}, "scales: nan; give"),
        ({"scales": (float("inf"),)}, "scales: inf; give"),
        ({"scales": "wide"}, "scales: 'wide' is not"),
        ({"crop": -5}, "crop: -5; give 1 or more"),
        ({"mode": "slide", "crop": (64, 0)}, "crop: 0; give 1 or more"),
        ({"mode": "slide", "crop": 64.5}, "crop: 64.5 is not a whole number"),
        ({"mode": "slide", "crop": (1, 2, 3)}, "crop: 1 2 3 is 3 values"),
        ({"mode": "slide"}, "crop: mode slide needs"),
        ({"crop": 64}, "crop: mode whole has no windows"),
        ({"stride": 64}, "stride: mode whole has no windows"),
        ({"mode": "slide", "crop": 64, "stride": 0}, "stride: 0 is not above 0"),
        ({"mode": "slide", "crop": 64, "stride": -0.5}, "stride: -0.5 is not above 0"),
        ({"mode": "slide", "crop": 64, "stride": (64, 65)}, "stride: 65 is more than the crop (64)"),
        ({"mode": "slide", "crop": 64, "stride": 1.5}, "stride: 1.5 is more than the crop"),
        ({"mode": "slide", "crop": 64, "stride": "half"}, "stride: 'half' is not a"),
        ({"mode": "slide", "crop": 64, "stride": float("nan")}, "stride: nan is not above 0"),
        ({"short_side": 15}, "short_side: 15; give 16 or more"),
        ({"flip": "perhaps"}, "flip: 'perhaps' is not true or false"),
        ({"flipp": True}, "unknown option 'flipp': did you mean 'flip'?"),
    ],
)
def test_mistakes_are_named_in_one_line(options: dict[str, Any], words: str) -> None:
    for make in (lambda: View(**options), lambda: changed(WHOLE, options)):
        with pytest.raises(ValueError, match=f"^{re.escape(words)}") as error:
            make()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (20, (20, 20)),
        (0.5, (0.5, 0.5)),
        (1, (1, 1)),  # a pixel
        (1.0, (1.0, 1.0)),  # the whole crop
        ("20", (20, 20)),
        ("1.0", (1.0, 1.0)),
        (["1", "0.5"], (1, 0.5)),
        ((7, 0.25), (7, 0.25)),
    ],
)
def test_pixels_and_fractions_stay_apart(given: Any, expected: tuple[int | float, int | float]) -> None:
    view = changed(WHOLE, {"mode": "slide", "crop": 40, "stride": given})
    assert view.stride == expected
    assert [type(step) for step in view.stride or ()] == [type(step) for step in expected]
    again = from_plain(View, json.loads(json.dumps(plain(view))), "somewhere")
    assert again == view
    assert [type(step) for step in again.stride or ()] == [type(step) for step in expected]
    assert options_of(View)["stride"].read(given) == expected


def test_words_of_the_command_line() -> None:
    words = {"mode": "slide", "crop": ["769"], "stride": ["512", "0.5"], "scales": ["0.75", "1"], "short_side": "520"}
    checked = {name: options_of(View)[name].read(word) for name, word in words.items()}
    assert View(**checked) == View(mode="slide", crop=(769, 769), stride=(512, 0.5), scales=(0.75, 1.0), short_side=520)
    with pytest.raises(ValueError, match=r"^--stride: 0 is not above 0"):
        options_of(View)["stride"].read("0")


def test_every_option_has_a_help() -> None:
    for option in options_of(View).values():
        assert option.help.endswith("."), option.name


def test_one_pass_is_known_for_one() -> None:
    assert View().single
    assert View(short_side=64, average="logits").single
    assert View().economical == View(average="logits")
    for options in ({"flip": True}, {"scales": (2.0,)}, {"mode": "slide", "crop": 64}):
        view = changed(WHOLE, options)
        assert not view.single
        assert view.economical == view


def test_named_views() -> None:
    for name, named in VIEWS.items():
        assert find_view(name) is named.view
        assert ("slide" in named.view.mode) == ("windows" in named.source)
        assert named.view.flip == ("mirrored" in named.source)
    with pytest.raises(ValueError, match=r"^unknown inference setting 'gald-hole': did you mean 'gald-whole'\?$"):
        find_view("gald-hole")


def test_grid_covers_the_image_and_mirrors() -> None:
    view = View(mode="slide", crop=(40, 33), stride=(0.5, 1.0))
    grid = grid_of(view, (97, 129))
    assert grid.rows == ((0, 40), (20, 60), (40, 80), (57, 97))
    assert grid.columns == ((0, 33), (33, 66), (66, 99), (96, 129))
    assert len(list(grid)) == 16
    rows, columns = grid.counts()
    assert (rows.min(), columns.max()) == (1, 2)
    assert grid.mirrored().columns[-1] == (0, 33)
    assert grid.mirrored().mirrored() == grid
    assert grid_of(WHOLE, (97, 129)).rows == ((0, 97),)


def test_a_view_needs_no_torch() -> None:
    code = "import sys, nonlocalseg.view; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
