"""A source of images: what it opens, what its mistakes say, and that values can inherit from it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from layouts import picture

from nonlocalseg.data.augmentation import Augmentation
from nonlocalseg.data.catalog import DATASETS
from nonlocalseg.data.source import DataSource, source_of_run
from nonlocalseg.data.transforms import train_transform
from nonlocalseg.values import changed, from_plain, options_of, plain, value


def drawn(**options: object) -> DataSource:
    return DataSource(data="synthetic", data_options=options)


def test_joined_splits() -> None:
    source = changed(drawn(length=3, size=(64, 128)), {"split": "train+val"})
    assert [(part.split, len(part)) for part in source.open()] == [("train", 3), ("val", 3)]
    assert source.describe() == "synthetic, train+val"
    assert len(source.labelled("train on")) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "no data set is given: add --data NAME"),
        ({"data": "synthetics"}, "unknown data set 'synthetics': did you mean 'synthetic'"),
        ({"data": "camvid"}, "no root is given: add --root DIR"),
        ({"data": "synthetic", "split": "train+vall"}, "unknown split of synthetic 'vall': did you mean 'val'"),
        (
            {"data": "synthetic", "data_options": {"sizes": 3}},
            "data_options: unknown option of Synthetic 'sizes': did you mean 'size'",
        ),
        ({"data": "synthetic", "data_options": {"strict": False}}, "unknown option of Synthetic 'strict'"),
        (
            {"data": "synthetic", "data_options": {"size": (32, 512)}},
            "data_options: size: 32 512; give height and width",
        ),
        ({"data": "camvid", "data_options": {"size": 3}}, "data_options: CamVid has no options; leave 'size' out"),
        ({"data": "folder", "data_options": {"val_fraction": 1}}, "data_options: val_fraction: 1; give less than 1"),
        ({"data": "pascal_context", "data_options": {"background": "x"}}, "background: 'x' is not true or false"),
    ],
)
def test_mistakes_in_one_line(options: dict[str, object], message: str) -> None:
    source = from_plain(DataSource, options, "here")
    with pytest.raises(ValueError, match=message) as error:
        source.open()
    assert "\n" not in str(error.value)


def test_wrong_fields() -> None:
    with pytest.raises(ValueError, match=r"^here: root: 3 is not a text$"):
        from_plain(DataSource, {"root": 3}, "here")
    with pytest.raises(ValueError, match=r"^unknown option 'rot': did you mean 'root'\?$"):
        changed(drawn(), {"rot": "x"})


def test_another_split_is_checked_under_its_own_name() -> None:
    with pytest.raises(ValueError, match="unknown val_split of synthetic 'vall': did you mean 'val'"):
        drawn().check("vall", "val_split")


def test_split_without_images_or_labels(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "test" / "a.png")
    (tmp_path / "images" / "train").mkdir()
    (tmp_path / "masks" / "train").mkdir(parents=True)
    (tmp_path / "classes.yaml").write_text("masks: {0: a, 1: b}")
    source = from_plain(DataSource, {"data": "folder", "root": tmp_path, "split": "test"}, "here")
    assert source.root == str(tmp_path)
    assert len(source.open()[0]) == 1
    with pytest.raises(ValueError, match="the split 'test' has no labels to train on"):
        source.labelled("train on")
    with pytest.raises(ValueError, match="no images in split 'train'"):
        changed(source, {"split": "train"}).open()


def test_classes_known_before_files_are_read() -> None:
    counts = {data: len(DataSource(data=data).known_classes() or ()) for data in DATASETS}
    assert counts["folder"] == 0
    assert counts["pascal_context"] == 59
    assert all(count > 1 for data, count in counts.items() if data != "folder")
    whole = DataSource(data="pascal_context", data_options={"background": True}).known_classes()
    assert whole is not None
    assert (len(whole), whole[0]) == (60, "background")


def test_written_and_read_again() -> None:
    source = drawn(size=(64, 128))
    assert plain(source)["data_options"] == {"size": [64, 128]}
    assert from_plain(DataSource, plain(source), "here") == source
    assert all(option.help.endswith(".") for option in options_of(DataSource).values())


@value
class Stretch(DataSource, Augmentation):
    split: str = "train"
    "Split that is trained on."
    steps: int = 10
    "Steps."


def test_values_inherit_from_both() -> None:
    stretch = Stretch(data="synthetic", crop=(32, 48), data_options={"length": 2, "size": (64, 128)})
    part = stretch.labelled("train on", train_transform(stretch, (0.5, 0.5, 0.5)))[0]
    assert (part.split, len(part), part[1]["image"].shape) == ("train", 2, torch.Size([3, 32, 48]))
    options = options_of(Stretch)
    assert set(options) == {*options_of(DataSource), *options_of(Augmentation), "steps"}
    assert options["crop"].help == options_of(Augmentation)["crop"].help
    assert options["split"].help == "Split that is trained on."
    assert from_plain(Stretch, plain(stretch), "here") == stretch
    with pytest.raises(ValueError, match="crop: 8; give 16 or more"):
        changed(stretch, {"crop": 8})


def test_catalogue_loads_no_reader_of_single_data_sets() -> None:
    code = "import sys, nonlocalseg.data.catalog; print([n for n in ('h5py', 'scipy') if n in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: &a [1]\nphases: [*a]", "it has aliases"),
        ("#" * (1 << 21), "it has more than"),
        ("phases: [3]", "expected names and values, found int"),
        ("steps: !!int ''", "is no recipe"),
    ],
)
def test_a_damaged_recipe_of_a_run_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(ValueError, match=words) as error:
        source_of_run(tmp_path)
    assert "\n" not in str(error.value)
