"""What the options of the augmentation may be, and what a mistake in them says."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nonlocalseg.data.augmentation import Augmentation
from nonlocalseg.values import from_plain, names_of, options_of, plain


def test_one_number_stands_for_both_sides() -> None:
    assert from_plain(Augmentation, {"crop": 64}, "here").crop == (64, 64)
    assert from_plain(Augmentation, {"crop": ["64"]}, "here").crop == (64, 64)
    assert from_plain(Augmentation, {"crop": ["64", "48"], "scale": ["1", "1.5"]}, "here").scale == (1.0, 1.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": (8, 64)}, "^crop: 8; give 16 or more$"),
        ({"crop": (64, 64, 64)}, "^crop: 64 64 64 is 3 values"),
        ({"crop": 64.5}, "^crop: 64.5 is not a whole number$"),
        ({"scale": (2, 0.5)}, "^scale: 2.0 0.5; give the smallest factor first"),
        ({"scale": (0, 0.5)}, "^scale: 0; give more than 0"),
        ({"flip": 2}, "^flip: 2; give 1"),
        ({"brightness": -1}, "^brightness: -1; give 0"),
        ({"class_balance": 0}, "^class_balance: 0; give more than 0"),
        ({"short_side": 8}, "^short_side: 8; give 16 or more$"),
        ({"flipped": 0.5}, "^unknown option 'flipped': did you mean 'flip'"),
    ],
)
def test_mistakes_in_one_line(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message.removeprefix("^")) as error:
        from_plain(Augmentation, options, "recipe.yaml")
    assert str(error.value).startswith("recipe.yaml: ")
    assert "\n" not in str(error.value)


def test_every_option_is_explained_and_comes_back() -> None:
    assert all(option.help.endswith(".") for option in options_of(Augmentation).values())
    assert names_of(Augmentation) == ("crop", "short_side", "scale", "flip", "brightness", "class_balance")
    given = Augmentation(crop=(64, 80), scale=(1, 1), short_side=32)
    assert from_plain(Augmentation, plain(given), "here") == given


def test_values_load_without_torch() -> None:
    code = "import sys, nonlocalseg.data.augmentation, nonlocalseg.data.source; print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"
