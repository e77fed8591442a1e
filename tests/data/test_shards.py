"""Shards give the pairs, pixels and batches of the files, whatever they hold; damaged ones are refused in one line."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nonlocalseg.cli import main
from nonlocalseg.data import sharding
from nonlocalseg.data.sharding import write_shards
from nonlocalseg.data.source import DataSource
from nonlocalseg.recipes.schema import Phase
from nonlocalseg.training.data import SeededImages, SegmentationData, collate


@pytest.fixture
def root(tmp_path) -> Path:
    """Photographs of two sizes as PNG and JPEG, with masks of values that are no class indices."""
    folder, generator = tmp_path / "files", np.random.default_rng(0)
    for split, count in (("train", 5), ("val", 2)):
        for kind in ("images", "masks"):
            (folder / kind / split).mkdir(parents=True)
        for number in range(count):
            size = (40, 56) if number % 2 else (56, 40)
            picture = Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8))
            picture.save(folder / "images" / split / f"{split}{number}.{'png' if number % 3 else 'jpg'}")
            mask = generator.choice(np.array([0, 7, 26], np.uint8), size)
            Image.fromarray(mask).save(folder / "masks" / split / f"{split}{number}.png")
    (folder / "classes.yaml").write_text("masks: {0: ignore, 7: road, 26: car}\n")
    return folder


@pytest.fixture(params=["pixels", "files"])
def shards(request, root, tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(sharding, "EACH", 3)
    write_shards(DataSource(data="folder", root=str(root)), tmp_path / "shards", request.param)
    return tmp_path / "shards"


def opened(root: Path, split: str):
    return DataSource(data="folder", root=str(root)).open_split(split)


def test_every_split_is_that_of_the_files(root, shards):
    assert sorted(path.name for path in shards.iterdir()) == ["00000.tar", "00001.tar", "00002.tar", "shards.json"]
    for split in ("train", "val", "all"):
        first, second = opened(root, split), opened(shards, split)
        assert [pair.name for pair in first.pairs] == [pair.name for pair in second.pairs]
        assert (first.classes, first.palette, first.labels.meaning) == (
            second.classes,
            second.palette,
            second.labels.meaning,
        )
        for index in range(len(first)):
            for expected, found in zip(first.read(index), second.read(index), strict=True):
                assert found.dtype == np.uint8
                assert np.array_equal(found, expected)


def test_batches_are_those_of_the_files(root, shards):
    phase = Phase(data="folder", root=str(root), crop=(32, 32), batch_size=4, steps=3, class_balance=0.6)
    sharded = Phase(data="folder", root=str(shards), crop=(32, 32), batch_size=4, steps=3, class_balance=0.6)
    data, same = (SegmentationData(one, (0.1, 0.2, 0.3), 5, 0, 1) for one in (phase, sharded))
    for draws in data.order(0, 1):
        first, second = (collate([SeededImages(one.train_images, 5)[draw] for draw in draws]) for one in (data, same))
        assert torch.equal(first["image"], second["image"])
        assert torch.equal(first["label"], second["label"])


def test_what_is_read_can_be_changed_and_the_shard_stays(shards):
    before = (shards / "00000.tar").read_bytes()
    image = opened(shards, "train").read_image(0)
    image[:] = 0
    assert (shards / "00000.tar").read_bytes() == before
    assert opened(shards, "train").read_image(0).any()


def test_the_shards_are_tars_that_others_read(root, shards):
    first = opened(root, "train").read(0)
    with tarfile.open(shards / "00000.tar") as tar:
        names = tar.getnames()
        assert [name.split(".")[:2] for name in names[:2]] == [["00000000", "image"], ["00000000", "label"]]
        for name, expected in zip(names[:2], first, strict=True):
            member = tar.extractfile(name)
            assert member is not None
            assert np.array_equal(np.asarray(Image.open(member)), expected)


def test_on_the_command_line(root, tmp_path, capsys):
    place = tmp_path / "made" / "shards"
    assert main(["prepare", "folder", "--root", str(root), "--shards", str(place)]) == 0
    assert "7 images in 1 shards" in capsys.readouterr().out
    assert main(["check-data", "folder", "--root", str(place)]) == 0
    assert main(["prepare", "folder", "--root", str(root), "--shards", str(place)]) == 2
    assert "is not empty; choose another folder" in capsys.readouterr().err
    assert main(["prepare", "folder", "--root", str(place), "--shards", str(tmp_path / "again")]) == 2
    assert "holds shards already" in capsys.readouterr().err


def test_other_data_options_and_splits_are_refused(shards):
    with pytest.raises(ValueError, match="holds shards of folder, not of camvid: give --data folder"):
        DataSource(data="camvid", root=str(shards)).open_split("train")
    with pytest.raises(ValueError, match="were made with none"):
        DataSource(data="folder", root=str(shards), data_options={"val_fraction": 0.5}).open_split("train")
    with pytest.raises(ValueError, match="split of the shards"):
        opened(shards, "test")


def changed(shards: Path, change) -> None:
    content = json.loads((shards / "shards.json").read_text())
    change(content)
    (shards / "shards.json").write_text(json.dumps(content))


def outside(content) -> None:
    content["samples"][0]["image"]["start"] = 10**9


def enlarged(content) -> None:
    content["samples"][0]["image"]["shape"] = [10**6, 10**6]


def foreign(content) -> None:
    content["samples"][0]["shard"] = 77


def renamed(content) -> None:
    content["samples"][0]["image"]["suffix"] = "/../../x"


def absent(content) -> None:
    content["splits"]["train"][0][1] = 99


def untyped(content) -> None:
    content["classes"] = 3


@pytest.mark.parametrize("change", [outside, enlarged, foreign, renamed, absent, untyped])
def test_an_altered_index_is_one_line(shards, change):
    changed(shards, change)
    with pytest.raises(ValueError, match=r"shards\.json: ") as error:
        opened(shards, "train")
    assert "\n" not in str(error.value)


def test_a_shard_that_is_cut_off_or_missing_is_named(shards):
    data = (shards / "00001.tar").read_bytes()
    (shards / "00001.tar").write_bytes(data[:-1000])
    with pytest.raises(ValueError, match=r"00001\.tar: has .* bytes where shards\.json says"):
        opened(shards, "train")
    (shards / "00001.tar").unlink()
    with pytest.raises(OSError, match="No such file"):
        opened(shards, "train")
    (shards / "shards.json").write_text("{")
    with pytest.raises(ValueError, match="no index of shards"):
        opened(shards, "train")


def test_nothing_half_written_is_taken_for_shards(root, tmp_path, monkeypatch):
    (root / "images/val/val1.png").write_bytes(b"broken")
    monkeypatch.setattr(sharding, "EACH", 3)
    with pytest.raises(ValueError, match=r"val1\.png"):
        write_shards(DataSource(data="folder", root=str(root)), tmp_path / "shards")
    assert not (tmp_path / "shards/shards.json").exists()
    assert all(path.suffix == ".tar" for path in (tmp_path / "shards").iterdir())
