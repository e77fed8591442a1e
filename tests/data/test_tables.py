"""Tables written as text, and palettes without doubles; names and palettes of the whole catalogue."""

from __future__ import annotations

import re
import sys

import pytest

from nonlocalseg.cli import main
from nonlocalseg.data.catalog import DATASETS
from nonlocalseg.data.pascal_context import CLASSES, PALETTE
from nonlocalseg.data.tables import colours, distinct, names, numbers


def test_text() -> None:
    assert names("\n  road, traffic light,\n  car\n") == ("road", "traffic light", "car")
    assert colours("804080 0000ff") == ((128, 64, 128), (0, 0, 255))
    assert numbers("3-5 9\n 11") == (3, 4, 5, 9, 11)


def test_distinct_keeps_first_mentions() -> None:
    palette = [(0, 0, 0), (0, 0, 0), (0, 0, 32), (1, 2, 3), (0, 0, 0)]  # the nearest free colour is taken later
    result = distinct(palette)
    assert len(set(result)) == 5
    assert [result[index] for index in (0, 2, 3)] == [(0, 0, 0), (0, 0, 32), (1, 2, 3)]
    assert len(set(distinct([(5, 5, 5)] * 60))) == 60


@pytest.mark.parametrize("data", [key for key in DATASETS if key not in ("folder", "synthetic", "pascal_context")])
def test_catalogue(data: str) -> None:
    kind = DATASETS[data]
    assert len(set(kind.classes)) == len(kind.classes) == len(kind.palette) == len(set(kind.palette))
    assert all(part in kind.splits for part in kind.expected_counts)


@pytest.mark.parametrize("data", DATASETS)
def test_a_palette_that_is_not_the_published_one_is_said(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`list datasets --data NAME` says it where `distinct` moved a colour."""
    assert main(["list", "datasets", "--data", data]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    moved = hasattr(sys.modules[DATASETS[data].__module__], "distinct")
    assert moved == bool(
        re.search(r"In the (published|usual) palette .* has the colour|have the colour of another", shown)
    )


def test_pascal_context_tables() -> None:
    assert len(set(CLASSES)) == len(PALETTE) == len(set(PALETTE)) == 60
