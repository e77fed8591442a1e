"""The catalog: every entry has its data set's classes, a view and terms; names and short forms find one, or say which."""

from __future__ import annotations

import pytest

from nonlocalseg.cli import main
from nonlocalseg.data.catalog import DATASETS
from nonlocalseg.zoo.entries import TERMS, all_entries, find_entry
from nonlocalseg.zoo.loading import classes_of


def test_the_whole_zoo_is_there():
    assert len(all_entries()) == 370
    assert len({entry.name for entry in all_entries()}) == 370
    assert len({entry.file for entry in all_entries()}) == 370


@pytest.mark.parametrize("entry", all_entries(), ids=lambda entry: entry.name)
def test_every_entry_is_whole(entry):
    names, palette, _ = classes_of(entry.data, entry.data_options)
    assert len(names) == len(palette) == entry.num_classes
    assert entry.data in DATASETS
    assert entry.terms == TERMS[entry.data]
    assert entry.digest in entry.file
    assert len(entry.digest) == 8
    assert 10 < entry.megabytes < 600
    assert 15 < entry.miou < 90
    assert entry.view.mode == entry.test["mode"]
    assert find_entry(entry.name) is entry
    assert find_entry(f"mmseg:{entry.name}") is entry
    best = find_entry(entry.short)
    assert (best.model, best.backbone, best.labels) == (entry.model, entry.backbone, entry.labels)
    assert best.miou >= entry.miou


@pytest.mark.shared
def test_facts_are_those_of_the_published_index(shared):
    import json

    facts = {fact["sha8"]: fact for fact in json.loads((shared / "zoo" / "mmsegmentation.json").read_text())}
    assert len(facts) == 370
    for entry in all_entries():
        fact = facts[entry.digest]
        assert (entry.address, entry.miou, entry.miou_flip) == (fact["weights"], fact["miou"], fact["miou_ms"])
        assert list(entry.crop) == fact["crop"]
        # Two of the index have no settings; four more are beside a network that their files' names contradict.
        if "depth" in fact and fact["name"] == entry.name:
            assert entry.num_classes == fact["num_classes"]
            assert dict(entry.test) == fact["test_cfg"]
            backbone = entry.network["backbone"]
            assert isinstance(backbone, dict)
            assert (backbone["type"], backbone.get("depth")) == (fact["backbone_type"], fact["depth"])


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("ann-r101-ade20k", "ann_r101-d8_4xb4-80k_ade20k-512x512"),
        ("mmseg:ann-r101-cityscapes", "ann_r101-d8_4xb2-40k_cityscapes-769x769"),
        ("pspnet-r50-cityscapes", "pspnet_r50-d8_4xb2-80k_cityscapes-769x769"),
        ("psp-r50b-cityscapes", "pspnet_r50b-d8_4xb2-80k_cityscapes-769x769"),
        ("fcn-r101-cityscapes-769x769-80k", "fcn-d6_r101-d16_4xb2-80k_cityscapes-769x769"),
        ("deeplabv3-r101-pascal-context-59", "deeplabv3_r101-d8_4xb4-40k_pascal-context-59-480x480"),
        ("deeplabv3plus-mobilenet-v2-ade20k", "mobilenet-v2-d8_deeplabv3plus_4xb4-160k_ade20k-512x512"),
    ],
)
def test_short_forms_are_the_best_of_their_kind(name, found):
    assert find_entry(name).name == found


def test_what_several_share_lists_them():
    with pytest.raises(ValueError, match=r"mmseg:ann-r101 may be any of ann-r101-d8-ade20k, ann-r101-d8-cityscapes, "):
        find_entry("mmseg:ann-r101")


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(
        ValueError, match=r"mmseg:ann-r100-d8-ade20k is not in the zoo: did you mean .*ann-r101-d8-ade20k"
    ):
        find_entry("mmseg:ann-r100-d8-ade20k")


def test_list_zoo(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    assert main(["list", "zoo"]) == 0
    shown = capsys.readouterr().out
    assert all(f"mmseg:{entry.name} " in shown for entry in all_entries())
    assert "374 checkpoints" in shown
    assert main(["list", "zoo", "--data", "ade20k", "--model", "ann"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("mmseg:ann_") == 4
    assert "42.94" in shown
    assert "research" in shown
