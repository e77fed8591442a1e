"""The page about a run: self-contained, whole, its figures those of the evaluation; what is missing is said in one line."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors.torch import load_file

from nonlocalseg.cli import main
from nonlocalseg.models.creation import create_model
from nonlocalseg.recipes.schema import Phase
from nonlocalseg.report import gather as gathering
from nonlocalseg.report.examples import Example, choose_pixel
from nonlocalseg.report.gather import read_curves
from nonlocalseg.report.page import report
from nonlocalseg.report.tables import phase_groups, plan_rows
from nonlocalseg.report.words import percent, spelled
from nonlocalseg.training.plan import Plan
from nonlocalseg.training.runs import train
from nonlocalseg.values import changed, names_of, options_of
from nonlocalseg.zoo.pretrained import from_pretrained

SECTIONS = ("scores", "curves", "confusion", "boundaries", "images", "attention", "speed", "recipe")
CLAIMS = re.compile(r"because|caus\w+|reasons?\b|\bwhy\b|explain\w*|due to|decisive", re.IGNORECASE)
"""Words that would say why a model decides as it does, which attention cannot."""
VOID_TAGS = {"meta", "img", "br", "link"}
QUIET: dict[str, Any] = {"workers": 0, "device": "cpu", "progress": False}


class Page(HTMLParser):
    """What stands on a page: its tags, pictures, tables (caption -> rows of cells) and text by section."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.pictures: list[dict[str, str]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.text: dict[str, str] = {}
        self.section = self.caption = ""
        self.feed(self.source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        found = {name: value or "" for name, value in attrs}
        self.attributes += found.items()
        if tag == "img":
            self.pictures.append({**found, "section": self.section})
        if tag == "section":
            self.section = found["id"]
        if tag == "caption":
            self.caption = ""
        if tag == "tr":
            self.tables.setdefault(self.caption, []).append([])
        if tag in ("td", "th"):
            self.tables[self.caption][-1].append("")
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text[self.section] = self.text.get(self.section, "") + data
        if self.open and self.open[-1] == "caption":
            self.caption += data
        if {"td", "th"} & set(self.open) and self.open[-1] != "small":
            self.tables[self.caption][-1][-1] += data

    def table(self, beginning: str) -> list[list[str]]:
        (rows,) = (rows for caption, rows in self.tables.items() if caption.startswith(beginning))
        return [[cell.strip() for cell in row] for row in rows]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny trained run with its report; tests must not change it."""
    folder = tmp_path_factory.mktemp("report") / "tiny <run>"
    train(
        data="synthetic",
        data_options={"size": [48, 96], "length": 6},
        model="ann",
        backbone="test_resnet.r160_in1k",
        model_options={"channels": 16, "key_channels": 8, "value_channels": 8, "auxiliary_channels": 16},
        steps=4,
        batch_size=2,
        crop=(48, 64),
        val_every=2,
        workers=0,
        out=folder,
        progress=False,
    )
    assert report(folder, images=2, pixels=2, **QUIET) == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return Page(run / "report.html")


@pytest.fixture(scope="module")
def stored(run: Path) -> dict[str, Any]:
    return json.loads(next((run / "evaluation").glob("*.json")).read_text())


def test_needs_no_other_file(page):
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", page.source)
    assert not page.tags & {"script", "link", "iframe", "object", "embed"}
    assert "url(" not in page.source
    assert "@import" not in page.source
    assert {value for name, value in page.attributes if name in ("href", "src") and not value.startswith("data:")} == {
        f"#{name}" for name in SECTIONS
    }
    assert len(page.pictures) > 4 * 4
    for picture in page.pictures:
        kind, _, content = picture["src"].removeprefix("data:image/").partition(";base64,")
        with Image.open(io.BytesIO(base64.b64decode(content))) as image:
            assert image.format is not None
            assert image.format.lower() == kind
            image.load()
        assert len(picture["alt"]) > 8


def test_every_section_is_there(page, run):
    assert [value for name, value in page.attributes if name == "id" and value in SECTIONS] == list(SECTIONS)
    assert "<run>" in page.text[""]  # the name of the folder, escaped
    assert "torch " in page.text["recipe"]  # the footer, after the last section
    assert all(caption for caption in page.tables)
    headings = re.findall(r"<h([123])", page.source)
    assert headings[0] == "1"
    assert headings.count("1") == 1


def test_figures_are_those_of_the_evaluation(page, stored):
    rows = page.table("Scores in per cent on 6 images")
    low, high = stored["interval"]
    assert rows[1] == ["mean IoU", *map(percent, (stored["mean_iou"], low, high))]
    for row, key in zip(rows[2:], ("mean_accuracy", "pixel_accuracy", "frequency_weighted_iou"), strict=True):
        assert row[1] == percent(stored[key])
        assert float(row[2]) <= float(row[1]) + 1e-9
        assert float(row[2]) <= float(row[3])
    classes = page.table("The classes in per cent")[1:]
    for number, (row, expected) in enumerate(zip(classes, stored["classes"], strict=True)):
        assert row[0].split() == [str(number), expected["class"]]
        figures = [percent(expected[key]) for key in ("iou", "precision", "recall")]
        assert [row[1], *row[3:5], row[5]] == [*figures, f"{expected['pixels']:,}"]
    confusion = np.array(stored["confusion"])
    np.fill_diagonal(confusion, 0)
    assert page.table("The commonest mistakes")[1][2] == f"{confusion.max():,}"


def test_boundaries_by_both_rules_with_their_radius(page, stored):
    found = stored["boundary"]
    rows = page.table("Boundary F")[1:]
    assert [float(row[0]) for row in rows] == found["thresholds"]
    for row, radii, published, present in zip(rows, found["radii"], found["published"], found["present"], strict=True):
        assert row[1:] == [str(radii[0]), percent(published), percent(present)]
    assert percent(found["mean_boundary_iou"]) in page.text["boundaries"]


def test_worst_and_best_images(page, run):
    lines = next((run / "evaluation").glob("*-images.csv")).read_text().splitlines()[1:]
    rows = sorted((float(line.split(",")[1]), line.split(",")[0]) for line in lines)
    shown = re.findall(r"(?:worst|best)(?: image)?: (val_\d+)", page.text["images"])
    assert shown == [name for _, name in (rows[0], rows[1], rows[-1], rows[-2])]
    for miou, name in rows[:2]:
        assert f"mIoU {percent(miou)} %" in page.text["images"]
        assert len([p for p in page.pictures if p["alt"].split(":")[0].split(",")[0].endswith(name)]) >= 4


def test_attention_of_a_wrong_and_a_right_pixel(page):
    text = page.text["attention"]
    assert "It does not say why" in text
    headings = re.findall(r"x = \d+, y = \d+: a (\w+) pixel", text)
    assert headings[0] == "wrong"
    assert len(headings) == 2
    for block in ("the fusion of stage 4", "the context block"):
        assert text.count(f"The weights of {block}") == 2


def test_attention_is_not_sold_as_a_reason(page):
    """The one such word is the note's own, which says that it is none, before the first picture."""
    texts = [page.text["attention"], *(p["alt"] for p in page.pictures if p["section"] == "attention")]
    assert len(texts) > 4
    assert CLAIMS.findall(" ".join(texts)) == ["why"]
    assert page.text["attention"].index("It does not say why") < page.text["attention"].index("x = ")
    assert CLAIMS.search("the weights show because of which region the pixel is a car")


def test_speed_and_recipe(page, run):
    rows = dict(page.table("One plain forward pass, float32, batch of 1, 96 × 48"))
    assert {"one image, median of 3", "multiply-adds", "parameters"} <= rows.keys()
    training = {row[0]: row[1:] for row in page.table("The training; bold")}
    plan = {row[0]: row[1] for caption in ("The model", "The run") for row in page.table(caption)}
    assert (plan["model"], plan["pretrained"], plan["accumulate"]) == ("ann", "no", "1")
    assert training["crop"] == ["48, 64"]
    assert "<strong>48, 64</strong>" in page.source
    assert "<strong>sgd</strong>" not in page.source  # the default
    assert (run / "recipe.yaml").read_text() in page.text["recipe"]
    assert "key channels" in {row[0] for row in page.table("Options of the model")}


def test_no_field_of_a_recipe_is_forgotten(page):
    """Every field of `Phase` and `Plan`, its value and its help stand on the page, in one row each."""
    for kind, captions in ((Phase, ("The training",)), (Plan, ("The model", "The run"))):
        shown = [row[0] for caption in captions for row in page.table(caption) if len(row) > 1]
        expected = [name.replace("_", " ") for name in names_of(kind) if name != "phases"]
        assert sorted(shown) == sorted(["option"] * len(captions) + expected)
        for option in options_of(kind).values():
            assert option.help
            assert option.name == "phases" or option.help in page.text["recipe"]


def test_values_differ_from_the_defaults_in_bold():
    plain, other = Phase(data="synthetic"), Phase(data="camvid", rate=0.1, short_side=480)
    rows = {row.name: row for group in phase_groups((plain, other)).values() for row in group}
    assert rows["short side"].values == (None, 480)
    assert rows["short side"].differs == (False, True)
    assert [name for name, row in rows.items() if any(row.differs)] == ["data", "short side", "rate"]
    model, run = plan_rows(changed(Plan(phases=(plain,)), {"seed": 3, "model": "fcn"}))
    assert [row.name for row in (*model, *run) if any(row.differs)] == ["model", "seed"]
    assert spelled({"a": (True, None, 0.5)}) == "a = yes, none, 0.5"


def test_curves(page, run, tmp_path):
    curves = read_curves(run, 1)
    assert curves["miou"][""][0] == [2, 4]
    assert all(f"{100 * value:.2f} %" in page.text["curves"] for value in curves["miou"][""][1])
    for number in (1, 2):
        shutil.copytree(run, tmp_path / f"phase-{number}", ignore=shutil.ignore_patterns("[!m]*"))
    assert list(read_curves(tmp_path, 2)["loss"]) == ["phase 1", "phase 2"]


def test_evaluation_is_measured_again_only_when_it_must(run, tmp_path, monkeypatch):
    class Measured(Exception):
        pass

    def measure(*anything: Any, **options: Any) -> None:
        raise Measured

    monkeypatch.setattr(gathering, "evaluate", measure)
    copy = shutil.copytree(run, tmp_path / "run")
    assert main(["report", str(copy), "--images", "0", "--pixels", "0", "--workers", "0", "--device", "cpu"]) == 0
    with pytest.raises(Measured):
        report(copy, split="train", **QUIET)
    with pytest.raises(Measured):
        report(copy, data_options={"length": 5}, **QUIET)
    with pytest.raises(Measured):
        report(copy, flip=True, **QUIET)
    stored = next((copy / "evaluation").glob("*.json"))
    found = json.loads(stored.read_text())
    stored.write_text(json.dumps(found | {"boundary": None}))
    with pytest.raises(Measured):
        report(copy, **QUIET)
    found["settings"]["source"]["root"] = "/somewhere/else"
    stored.write_text(json.dumps(found))
    with pytest.raises(Measured):
        report(copy, **QUIET)
    shutil.copy(run / "evaluation" / stored.name, stored)
    os.utime(copy / "best" / "config.json")  # copied: the weights are the same
    report(copy, images=0, pixels=0, **QUIET)
    weights = load_file(copy / "best/model.safetensors")
    model = from_pretrained(copy / "best")
    model.load_state_dict({name: value + 1 if name == "mean" else value for name, value in weights.items()})
    model.save_pretrained(copy / "best")
    with pytest.raises(Measured):
        report(copy, **QUIET)


def test_model_without_attention_and_run_without_curves(run, tmp_path):
    folder = tmp_path / "plain"
    folder.mkdir()
    shutil.copy(run / "recipe.yaml", folder)
    scenes = gathering.open_measured(run, {"data_options": {"length": 1}})
    part = scenes.parts[0]
    model = create_model("fcn", "test_resnet.r160_in1k", classes=part.classes, palette=part.palette, channels=8)
    model.save_pretrained(folder / "best")
    page = Page(report(folder, data_options={"length": 1}, out=tmp_path / "deep/er.html", **QUIET))
    assert "no block that attends" in page.text["attention"]
    assert "no metrics.csv" in page.text["curves"]
    assert page.text["images"].count("image: val_") == 1  # the one image is not shown twice
    assert len(list((folder / "evaluation").glob("synthetic-val-whole-*.json"))) == 1
    assert page.tables.keys() >= {"Boundary F in per cent at four tolerances"}


def test_chosen_pixels_lie_deepest():
    truth = np.zeros((20, 30), np.uint8)
    truth[:, 15:] = 255
    said = np.zeros((20, 30), np.int64)
    said[2:9, 3:10] = 1
    said[15, 1] = said[:, 20:] = 1
    example = Example("x", 0.5, 0.5, np.zeros((20, 30, 3), np.uint8), truth, said)
    assert choose_pixel(example, wrong=True) == (6, 5)
    x, y = choose_pixel(example, wrong=False)
    assert truth[y, x] == said[y, x] == 0
    perfect = dataclasses.replace(example, prediction=truth.astype(np.int64))
    assert choose_pixel(perfect, wrong=True)[0] < 15


def _broken(run: Path, tmp_path: Path, change: Callable[[Path], Any]) -> Path:
    copy = shutil.copytree(run, tmp_path / "copy")
    change(copy)
    return copy


def _moved(folder: Path) -> None:
    path = folder / "recipe.yaml"
    fields = yaml.safe_load(path.read_text())
    fields["phases"][0] |= {"data": "camvid", "root": "/nowhere/CamVid", "data_options": {}}
    path.write_text(yaml.safe_dump(fields))


def _unvalidated(folder: Path) -> None:
    path = folder / "recipe.yaml"
    path.write_text(path.read_text().replace("val_split: val", "val_split: null"))


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        (shutil.rmtree, {}, "no such run"),
        (lambda f: (f / "recipe.yaml").unlink(), {}, "holds no recipe.yaml"),
        (lambda f: shutil.rmtree(f / "best"), {}, "--resume"),
        (lambda f: None, {"split": "tset"}, "'tset': did you mean 'test'.*--split"),
        (lambda f: None, {"data": "folder"}, "--root"),
        (lambda f: None, {"images": -1}, "--images: -1"),
        (lambda f: None, {"out": "."}, "--out: . is a folder"),
        (lambda f: None, {"out": "recipe.yaml/report.html"}, "--out: .*recipe.yaml is a file"),
        (_moved, {}, "/nowhere/CamVid.*--root DIR"),
        (_unvalidated, {}, "--split: .*without validation"),
    ],
)
def test_mistakes_are_one_line(run, tmp_path, monkeypatch, change, options, said):
    folder = _broken(run, tmp_path, change)
    if folder.is_dir():
        monkeypatch.chdir(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=said) as error:
        report(folder, **{**QUIET, **options})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("width", [1200, 400])
def test_a_browser_shows_it(page, run, tmp_path, width):
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("chromium is not installed")
    shot = tmp_path / "shot.png"
    words = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    address = (run / "report.html").as_uri()
    command = [browser, *words, f"--window-size={width},2400", f"--screenshot={shot}", address]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    with Image.open(shot) as picture:
        pixels = np.asarray(picture.convert("L"))
    assert pixels.shape == (2400, width)
    bands = pixels[:2000].reshape(8, 250, width)
    assert all((band < 128).mean() > 0.002 for band in bands), "a part of the page is blank"
    assert (pixels[:, -8:] > 200).mean() > 0.9, "something is wider than the page"


def test_the_date_of_the_model_survives_a_copy(run: Path, tmp_path: Path) -> None:
    """It was the time of the file, which a copy does not keep."""
    config = json.loads((run / "best" / "config.json").read_text())
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (copy / "best" / "config.json").write_text(json.dumps({**config, "saved": "2024-02-29T12:00:00+00:00"}))
    os.utime(copy / "best" / "model.safetensors", (1, 1))
    for path in (copy / "evaluation").iterdir():
        os.utime(path)
    report(copy, images=0, pixels=0, **QUIET)
    assert "Model of 29 February 2024" in (copy / "report.html").read_text(encoding="utf-8")


def test_the_page_says_what_a_dash_is_and_each_thing_once(page: Page) -> None:
    caption = next(caption for caption in page.tables if caption.startswith("The classes"))
    assert "the precision of a class that was never predicted" in caption
    shown = [picture["alt"] for picture in page.pictures if picture["section"] == "attention"]
    assert shown
    assert all(
        alt.count("%  ") >= 5 for alt in shown
    )  # the list stands in the picture, and for those who do not see it
    assert "<ol" not in page.source
