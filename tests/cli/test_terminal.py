"""What is printed cannot steer the terminal: names of files and classes are shown, not obeyed."""

from __future__ import annotations

import os

from rich.table import Table

from nonlocalseg.cli import main
from nonlocalseg.cli.terminal import output, visible

EVIL = "a\x1b]0;owned\x07\x9b31m\u202eb"
SHOWN = r"a\x1b]0;owned\x07\x9b31m\u202eb"


def test_names_are_shown_and_not_obeyed(capsys):
    assert visible(EVIL) == SHOWN
    assert visible("Straße, 道, 👍, á\n\ttwo\r") == "Straße, 道, 👍, á\n\ttwo\\r"
    table = Table(EVIL, title=EVIL)
    table.add_row(EVIL)
    console = output()
    console.print(table)
    console.print(EVIL)
    assert capsys.readouterr().out.count(SHOWN) == 4


def test_files_with_odd_names(capsys, data):
    odd = [data / "images" / "train" / f"{EVIL}.png", data / "masks" / "val" / os.fsdecode(b"\xff.png")]
    for path in odd:
        path.write_bytes(b"nothing")
    assert main(["check-data", "folder", "--root", str(data)]) == 2
    assert main(["train", "--data", "folder", "--root", str(data), "--out", str(data / "run")]) == 2
    assert main(["list", "models", "--model", EVIL]) == 2
    shown = capsys.readouterr()
    for text in (shown.out, shown.err):
        text.encode()
        assert SHOWN in text
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(text)
    assert r"\udcff.png" in shown.out
