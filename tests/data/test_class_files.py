"""What may stand in classes.yaml, and every mistake in it in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from nonlocalseg.data.class_files import read_classes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("masks:\n  #ff0000: car\n  1: road", "line 2: put the colour in quotes"),
        ("masks: {1: road, 1: car}", "1 stands there twice"),
        ('masks: {"#ff0000": road, [255, 0, 0]: car}', "a colour stands there twice"),
        ("masks: {1: yes}", "put the name in quotes"),
        ("masks: {no: car}", "reads as False"),
        ("masks: {0: ignore}", "every value is ignored"),
        ("masks: {road: 1}", "the class of road is 1"),
        ("masks: {red: road}", "'red' is neither a mask value nor a colour"),
        ("masks: {[1, 2]: road}", "is neither a mask value nor a colour"),
        ('masks: {1: road, "#ff0000": car}', "either mask values or colours"),
        ("masks: {70000: road}", "from 0 to 65535"),
        ("masks: {1: road}\npalette: {raod: '#000000'}", "palette has raod"),
        ("masks: {1: road}\ncolors: 1", "unknown entry colors"),
        ("classes: [road]", "needs an entry `masks`"),
        ("masks: {1: road", "not valid YAML"),
        ("", "needs an entry `masks`"),
        ('masks: {1: "ro\\ead"}', r"'ro\\x1bad' cannot be the name of a class"),
        ("masks: {1: ' '}", "cannot be the name of a class"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nmasks: {1: *b}", "line 2: an alias"),
        ("masks: " + "[" * 3000, "lists within lists"),
        ("masks: {2020-13-45: road}", "not valid YAML: month must be in 1..12"),
        ("masks: {{a: b}: road}", "not valid YAML: unhashable"),
        ("masks: {1: road}" + " " * (1 << 20), "more than 1 MB"),
    ],
)
def test_wrong_class_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "classes.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_classes(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_other_bytes(tmp_path: Path) -> None:
    path = tmp_path / "classes.yaml"
    path.write_bytes("masks: {1: Straße}".encode("latin-1"))
    with pytest.raises(ValueError, match=r"classes.yaml: byte 15 is no UTF-8 text; save the file as UTF-8"):
        read_classes(path)
    path.write_bytes(b"\xef\xbb\xbfmasks: {1: road}")
    assert read_classes(path)[0] == ("road",)
