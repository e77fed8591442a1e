"""manifest.csv: every input once, whatever was interrupted, changed or done before."""

from __future__ import annotations

import csv
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nonlocalseg import images
from nonlocalseg.inference.batch import Labelled, Labeller, Way, way_of
from nonlocalseg.inference.manifest import Manifest
from nonlocalseg.inference.sources import Inputs, find_inputs
from nonlocalseg.view import WHOLE, View


class Brightness(nn.Module):
    """Two classes: dark and bright."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.register_buffer("threshold", torch.tensor(threshold))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        bright = images.mean(1, keepdim=True) - self.get_buffer("threshold")
        return {"out": torch.cat([-bright, bright], 1)}


NETWORK = Brightness(0.5)
WAY = way_of(NETWORK, WHOLE, {})


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(6):
        images.write_image(tmp_path / f"in/{number}.png", np.full((16, 20, 3), 50 * number, np.uint8))
    (tmp_path / "in/3.png").write_bytes(b"\x89PNG nothing")
    return tmp_path / "in"


def found_in(photos: Path) -> Inputs:
    return find_inputs([str(photos)], photos.parent / "out")


def labelled(photos: Path, way: Way = WAY, again: bool = False, stop: int | None = None) -> list[str]:
    """The names that were labelled, as a call does it; `stop`: killed after so many."""
    out, found = photos.parent / "out", found_in(photos)
    manifest = Manifest(out, way, found.listed, again)
    left = [item for item in found.listed if item.input not in manifest.earlier]
    labeller = Labeller(NETWORK, WHOLE, torch.device("cpu"))
    for item in left[:stop]:
        manifest.add(labeller.label(item, out))
    return [item.name for item in left]


def rows_of(out: Path, name: str = "manifest.csv") -> list[dict[str, str]]:
    with (out / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def check(photos: Path) -> None:
    """Every input once, and the areas of every one that is done."""
    out = photos.parent / "out"
    rows = rows_of(out)
    assert sorted(row["input"] for row in rows) == sorted(map(str, photos.glob("*.png")))
    done = {Path(row["input"]).name for row in rows if row["status"] == "done"}
    pixels: Counter[str] = Counter()
    for row in rows_of(out, "areas.csv"):
        pixels[row["image"]] += int(row["pixels"])
    assert pixels == dict.fromkeys(done, 320)
    assert {row["output"] for row in rows} == {"", *(f"index/{name}.png" for name in done)}
    for row in rows:
        assert ("reason" in row and "3.png" in row["reason"]) == (row["status"] == "failed")


def test_nothing_that_is_done_is_done_again(photos):
    assert len(labelled(photos)) == 6
    check(photos)
    for _ in range(2):
        assert labelled(photos) == ["3.png"]  # what failed may be well now
        check(photos)
    assert len(labelled(photos, again=True)) == 6
    check(photos)


def test_a_killed_call_goes_on_where_it_was(photos):
    labelled(photos, stop=2)
    assert labelled(photos, stop=3) == ["2.png", "3.png", "4.png", "5.png"]
    assert labelled(photos) == ["3.png", "5.png"]
    check(photos)


@pytest.mark.parametrize(("size", "left"), [(-1, 5), (-10, 5), (5, 6), (0, 6)])
@pytest.mark.parametrize("table", ["manifest.csv", "areas.csv"])
def test_rows_that_were_cut_off_count_as_never_written(photos, table, size, left):
    labelled(photos, stop=2)
    path = photos.parent / "out" / table
    os.truncate(path, size if size >= 0 else path.stat().st_size + size)
    assert len(labelled(photos)) == left
    check(photos)


def test_what_changed_is_labelled_again(photos):
    out = photos.parent / "out"
    labelled(photos)
    images.write_image(photos / "0.png", np.full((16, 20, 3), 255, np.uint8))
    (out / "overlay/1.png.png").unlink()
    assert labelled(photos) == ["0.png", "1.png", "3.png"]
    check(photos)
    assert int(images.read_mask(out / "index/0.png.png").min()) == 1
    darker = way_of(Brightness(0.4), WHOLE, {})
    scaled = way_of(NETWORK, View(scales=(0.5, 1.0)), {})
    ways = [WAY, darker, scaled, way_of(NETWORK, WHOLE, {"legend": True})]
    assert len(set(ways)) == 4
    assert way_of(NETWORK, WHOLE, {"legend": False}) == WAY
    for way in ways[1:]:
        assert len(labelled(photos, way)) == 6
        check(photos)
        assert {(row["model"], row["view"], row["options"]) for row in rows_of(out)} == {
            (way.model, way.view, way.options)
        }


def test_a_call_that_was_killed_as_it_began_anew_leaves_nothing_half_true(photos):
    """Otherwise pictures of two ways would lie beside each other as those of one."""
    labelled(photos)
    labelled(photos, way_of(Brightness(0.4), WHOLE, {}), stop=1)
    assert len(rows_of(photos.parent / "out")) == 1
    assert len(labelled(photos)) == 6
    check(photos)


def test_other_inputs_of_the_folder_stay(photos, tmp_path):
    labelled(photos)
    images.write_image(tmp_path / "other/a.png", np.zeros((16, 20, 3), np.uint8))
    images.write_image(tmp_path / "other/0.png", np.zeros((16, 20, 3), np.uint8))  # replaces that of photos
    out, listed = tmp_path / "out", find_inputs([str(tmp_path / "other")], tmp_path / "out").listed
    manifest = Manifest(out, WAY, listed)
    for item in listed:
        manifest.add(Labeller(NETWORK, WHOLE, torch.device("cpu")).label(item, out))
    expected = [*(f"{photos}/{number}.png" for number in range(1, 6)), *(f"{tmp_path}/other/{n}.png" for n in "0a")]
    assert sorted(row["input"] for row in rows_of(out)) == sorted(expected)
    assert labelled(photos) == ["0.png", "3.png"]
    (out / "index/a.png.png").unlink()
    labelled(photos)
    check(photos)


def test_arrays_have_a_label_image_alone(photos, tmp_path):
    """In another format, as their input is."""
    images.write_image(tmp_path / "other/a.png", np.zeros((16, 20, 3), np.uint8))
    out, (item,) = tmp_path / "out", find_inputs([str(tmp_path / "other")], tmp_path / "out").listed
    area = {"image": item.name, "class": "0", "pixels": 320, "share": 1.0}
    Manifest(out, WAY, [item]).add(Labelled(item, "done", areas=[area], suffix=".npy"))
    assert Manifest(out, WAY, [item]).earlier == set()
    (out / "index").mkdir()
    (out / "index/a.png.npy").touch()
    for _ in range(2):
        Manifest(out, WAY, [item]).add(Labelled(item, "done", areas=[area], suffix=".npy"))
        labelled(photos)
        assert Manifest(out, WAY, [item]).earlier == {item.input}
        Manifest(out, WAY, [item], again=True)


def test_nothing_is_accounted_for_twice(photos):
    out, listed = photos.parent / "out", found_in(photos).listed
    manifest = Manifest(out, WAY, listed)
    result = Labeller(NETWORK, WHOLE, torch.device("cpu")).label(listed[0], out)
    manifest.add(result)
    with pytest.raises(ValueError, match=r"0\.png: accounted for twice"):
        manifest.add(result)
    with pytest.raises(ValueError, match="never asked for"):
        manifest.add(replace(result, item=replace(listed[0], input="another")))


def test_a_table_of_somebody_else_is_left_alone(photos):
    path = photos.parent / "out/manifest.csv"
    path.parent.mkdir()
    for text in ("name,score\na,1\n", "mine", "inputs"):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"manifest\.csv is no table of predictions: move it away"):
            labelled(photos)
        assert path.read_text() == text


def test_names_that_are_no_text(photos):
    odd = os.fsencode(photos) + b'/a,\xff\n"b.png'
    os.rename(photos / "0.png", odd)
    labelled(photos)
    rows = rows_of(photos.parent / "out")
    assert sum(row["input"].endswith('a,\\udcff\n"b.png') for row in rows) == 1
    assert len(rows) == 6
