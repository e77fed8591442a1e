"""Published figures beside the measured ones, and their settings."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from nonlocalseg.cli import main
from nonlocalseg.cli.published import claim_of
from nonlocalseg.data.catalog import DATASETS
from nonlocalseg.recipes.catalog import RECIPES
from nonlocalseg.recipes.schema import Phase, Published, Recipe
from nonlocalseg.view import View
from nonlocalseg.zoo.entries import all_entries, find_entry

FLIPPED = View(flip=True)
ROWS = (
    Published("Table 1", "mIoU", 77.7, FLIPPED, (71.5, 83.9)),
    Published("Table 2", "pixel accuracy", 91.3),
    Published("Table 3", "mIoU (test)", 66.6, whose="Somebody's"),
    Published("Table 4", "boundary F 1 px", 55.5, classes=(52.5, 58.5)),
)
RECIPE = Recipe("folder/made-up", "fcn", "resnet18", (Phase(data="folder"),), published=ROWS)


@pytest.fixture
def run(trained, tmp_path, monkeypatch):
    """A run that came from a recipe with published figures."""
    monkeypatch.setitem(RECIPES, RECIPE.name, RECIPE)
    monkeypatch.setenv("COLUMNS", "200")
    folder = shutil.copytree(trained[1], tmp_path / "run")
    recipe = folder / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("recipe: null", f"recipe: {RECIPE.name}"))
    return folder


def cells(shown, first):
    """The cells of the row that begins with `first`."""
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in shown.splitlines()]
    return next(row for row in rows if row[0] == first and len(row) != 5)


def test_a_run_of_a_recipe_stands_beside_its_published_figures(run, capsys):
    assert main(["evaluate", str(run), "--workers", "0"]) == 0
    shown = capsys.readouterr().out
    assert "published of recipe folder/made-up" in shown
    measured = shown.partition("mIoU            ")[2].split()[0]
    metric, published, found, interval, table, seen = cells(shown, "mIoU")
    assert (metric, published, found, table) == ("mIoU", "77.7", measured, "Table 1")
    assert f"95 % interval {interval})" in shown
    assert seen.startswith("otherwise: whole images, one")
    pixels = shown.partition("pixel accuracy  ")[2].split()[0]
    assert cells(shown, "pixel accuracy")[1:] == ["91.3", pixels, "-", "Table 2", "as these"]
    assert cells(shown, "mIoU (test)")[1:5] == ["66.6", "-", "-", "Table 3, Somebody's"]
    assert "mIoU by class, Table 1" in shown
    first = shown.partition("ground")[2].strip(" │").split()[0]
    assert cells(shown.partition("by class")[2], "ground") == ["ground", "71.5", first]


def test_boundaries_by_class(run, capsys):
    assert main(["evaluate", str(run), "--workers", "0", "--boundary", "--setting", "published"]) == 0
    shown = capsys.readouterr().out
    assert "boundary F 1 px by class, Table 4" in shown
    assert cells(shown, "boundary F 1 px")[1] == "55.5"
    assert float(cells(shown, "boundary F 1 px")[2]) >= 0
    assert "seen as         whole images, one scale, mirrored as well" in shown  # of the first row
    assert cells(shown, "mIoU")[5] == "as these"


def test_other_data_have_no_published_figures(run, capsys, monkeypatch):
    monkeypatch.setitem(RECIPES, RECIPE.name, replace(RECIPE, phases=(Phase(data="camvid"),)))
    assert main(["evaluate", str(run), "--workers", "0"]) == 0
    assert "published" not in capsys.readouterr().out


def test_the_published_setting_is_that_of_a_recipe(run, trained, mistake):
    assert "--setting published fixes --flip" in mistake("evaluate", run, "--setting", "published", "--flip")
    assert "no figure was published of" in mistake("evaluate", trained[1], "--setting", "published")


@pytest.mark.parametrize("name", sorted({entry.short for entry in all_entries()}))
def test_every_checkpoint_of_the_zoo_has_its_figures(name):
    claim, entry = claim_of(f"mmseg:{name}"), find_entry(name)
    assert claim is not None
    assert [row.value for row in claim.rows] == [v for v in (entry.miou, entry.miou_flip) if v is not None]
    assert claim.rows[0].view == entry.view
    split = "test" if claim.rows[0].metric.endswith("(test)") else "val"
    assert split in DATASETS[claim.data].splits


def test_an_official_file_has_its_figure():
    claim = claim_of("official:ann-r101-cityscapes-test")
    assert claim is not None
    assert [(row.metric, row.value) for row in claim.rows] == [("mIoU (test)", 81.3)]
