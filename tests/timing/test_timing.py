"""Measurements at tiny sizes: the columns of every table, multiply-adds counted by hand, errors, memory; no times."""

from __future__ import annotations

import json
import math

import pytest
import torch

from nonlocalseg.blocks import reference
from nonlocalseg.cli import main
from nonlocalseg.heads.ann import ANNHead
from nonlocalseg.models.cost import multiply_adds
from nonlocalseg.models.creation import create_model
from nonlocalseg.timing import blocks, loading, networks, steps
from nonlocalseg.timing.blocks import fill, literal_context, paper_pair
from nonlocalseg.timing.measuring import Case, compare, peak_memory, relative_error
from nonlocalseg.timing.networks import literal_ann_head
from nonlocalseg.timing.published import ANN_TABLE_1
from nonlocalseg.timing.tables import Table, spell, write_json

CPU = torch.device("cpu")
TINY = {"backbone": "test_resnet.r160_in1k", "channels": 8, "key_channels": 8, "value_channels": 8}
MEASURED = {"seconds", "spread", "cpu_seconds", "ratio", "multiply_adds", "memory", "extra_memory", "error"}
S = 110


def by_name(table: Table) -> dict[str, dict]:
    assert {"device", "torch", "nonlocalseg"} <= table.surroundings.keys()
    return {row["name"]: row for row in table.rows}


# --- Multiply-adds -----------------------------------------------------------------------------------------------


def test_our_block_costs_what_the_formula_says():
    """2 N S C, the pooling matrices and four small products; the literal NB 3 N C E + 2 N^2 E and W_o."""
    (height, width), channels, width_of_keys = (16, 12), 320, 128
    nb, apnb = paper_pair(channels, width_of_keys, CPU)
    x = torch.randn(1, channels, height, width)
    positions = height * width
    pooling = channels * (positions * 18 + height * S)
    with torch.no_grad():
        ours, _ = multiply_adds(lambda: apnb.context(x, x))
        literal, _ = multiply_adds(lambda: literal_context(nb, x))
    small = 4 * channels * width_of_keys * S + width_of_keys * S  # the last: b_phi^T theta
    assert 0 <= ours - (2 * positions * S * channels + pooling + small) < 100  # index arithmetic of the bins
    projections = 4 * positions * channels * width_of_keys
    assert literal == projections + 2 * positions**2 * width_of_keys + width_of_keys * positions  # the scale's products


@pytest.mark.parametrize(("size", "limit"), [((96, 96), 4.9e9), ((256, 128), 16.5e9)])
def test_counts_of_the_papers_blocks(size, limit):
    """The paper has 15.5 G and 43.5 G; counted on shapes alone."""
    meta = torch.device("meta")
    block = paper_pair(2048, 256, meta)[1]
    x = torch.empty(1, 2048, *size, device=meta)
    with torch.no_grad(), meta:
        assert multiply_adds(lambda: block.context(x, x))[0] <= limit < ANN_TABLE_1[size][1]["multiply_adds"]


# --- Comparing ----------------------------------------------------------------------------------------------------


def test_compare_fills_every_column():
    x = torch.randn(64, 64)
    cases = [Case("one", lambda: x @ x), Case("other", lambda: (x @ x) * 1.001, "one")]
    first, second = compare(cases, CPU, repeat=2, overall="one")
    assert MEASURED | {"name", "overall_ratio"} == first.keys() == second.keys()
    assert (first["ratio"], first["error"], first["overall_ratio"]) == (None, None, 1.0)
    assert first["multiply_adds"] == 64**3
    assert second["multiply_adds"] == 64**3 + 64**2
    assert second["error"] == pytest.approx(1e-3, rel=1e-2)
    assert second["ratio"] == second["overall_ratio"] > 0


def test_figures_belong_together_on_a_busy_machine(monkeypatch):
    """The median of each round's quotient would say 1.9x of two times that are printed as nearly equal."""
    rounds = {"slow": [2.0, 3.2, 3.8], "fast": [1.0, 3.1, 2.0]}
    taken = {name: iter([0.1, *times]) for name, times in rounds.items()}  # the first is the warm-up
    cases = [Case("slow", lambda: torch.ones(2)), Case("fast", lambda: torch.ones(2) * 1, "slow")]
    by_run = {case.run: case.name for case in cases}
    monkeypatch.setattr("nonlocalseg.timing.measuring.elapsed", lambda run, *_: (next(taken[by_run[run]]), 0.0))
    slow, fast = compare(cases, CPU, repeat=3, overall="slow")
    assert (slow["seconds"], fast["seconds"]) == (3.2, 2.0)
    assert fast["ratio"] == fast["overall_ratio"] == slow["seconds"] / fast["seconds"]
    assert fast["spread"] == pytest.approx((3.1 - 1.0) / 2 / 2.0)


def test_mistakes_in_comparisons():
    with pytest.raises(ValueError, match="'nothing'"):
        compare([Case("one", lambda: torch.ones(1), "nothing")], CPU)
    with pytest.raises(ValueError, match="--repeat: 0"):
        compare([], CPU, repeat=0)


def test_error_is_relative_to_the_largest_element_of_each():
    ones = [torch.tensor([4.0, 0.0]), torch.tensor([100.0])]
    assert relative_error([torch.tensor([4.0, 1.0]), torch.tensor([110.0])], ones) == 0.25
    assert math.isnan(relative_error([torch.tensor([float("nan")])], [torch.ones(1)]))


@pytest.mark.skipif(peak_memory(lambda: None, CPU)[0] is None, reason="only Linux tells the high-water mark")
def test_peak_memory_is_what_was_allocated():
    megabytes = 2**20

    def run():
        scratch = torch.zeros(64 * megabytes // 4)  # 64 MB at the peak, 16 of which are the result
        result = torch.ones(16 * megabytes // 4)
        return result, scratch[:0].clone()

    run()
    peak, extra = peak_memory(run, CPU)
    assert peak is not None
    assert extra is not None
    assert 79 * megabytes < peak < 90 * megabytes
    assert 15.9 * megabytes < peak - extra < 16.1 * megabytes


# --- Tables -------------------------------------------------------------------------------------------------------


def test_blocks_are_exact_and_stand_beside_the_paper():
    table = blocks.block((9, 11), CPU, repeat=1, channels=48, key_channels=16)
    rows = by_name(table)
    for name, row in rows.items():
        assert row.keys() >= MEASURED
        if not name.endswith("literal"):
            assert row["error"] < 1e-5, name
            assert row["ratio"] > 0
        assert row["overall_ratio"] > 0
    assert set(table.headings) <= set().union(*(row.keys() for row in table.rows))


def test_published_rows_are_added_and_a_literal_block_that_does_not_fit_is_not_measured(monkeypatch):
    given = []
    monkeypatch.setattr("nonlocalseg.timing.blocks.compare", lambda cases, *_: given.extend(cases) or [])
    published = by_name(blocks.block((96, 96), CPU, channels=2, key_channels=2))
    assert published["ANN Table 1: APNB"]["overall_ratio"] == pytest.approx(19.5 / 12.4)
    assert given[0].name == "NB, literal"
    given.clear()
    monkeypatch.setattr("nonlocalseg.timing.blocks.free_memory", lambda _: 8 * (96 * 96) ** 2)
    table = blocks.block((96, 96), CPU, channels=2, key_channels=2)
    assert given[0].name == "NB, ours"
    assert "need 1 GB" in table.notes[-1]


def test_operations_add_up():
    table = blocks.operations((10, 12), CPU, repeat=1, channels=16, key_channels=32)
    rows = by_name(table)
    for column in set(table.headings) - {"name"}:
        assert rows["sum"][column] > 0
        assert rows["sum"][column] == pytest.approx(sum(r[column] for name, r in rows.items() if name != "sum"))
    assert rows["attention"]["NB, ours seconds"] > 0 == rows["attention"]["APNB, ours seconds"]
    assert rows["pooling"]["APNB, literal seconds"] > 0 == rows["pooling"]["NB, literal seconds"]
    assert rows["pooling"]["APNB, ours seconds"] > 0
    assert rows["convolution"]["APNB, ours seconds"] == 0 < rows["convolution"]["APNB, literal seconds"]


def test_local_attention_against_unfold():
    rows = by_name(blocks.local_attention((8, 9), CPU, repeat=1, batch=1, channels=4, kernel_size=3, dilation=2))
    for way, factor in (("forward", 2), ("forward + backward", 6)):
        assert rows[f"{way}, ours"]["error"] < 1e-5
        assert 0 <= rows[f"{way}, ours"]["multiply_adds"] - factor * 4 * 9 * 72 <= 9 * 72 * 3


def test_head_is_exact_folded_too():
    rows = by_name(networks.head((5, 6), CPU, repeat=1, **TINY))
    assert len(rows) == 6
    for name, row in rows.items():
        assert name.endswith("literal") or row["error"] < 1e-5


def test_literal_head_is_the_head():
    model = create_model("ann", num_classes=3, auxiliary=False, **TINY)
    head = fill(model.head)
    assert isinstance(head, ANNHead)
    features = {s: torch.randn(1, model.backbone.channels[s], 5, 6) for s in (4, 5)}
    torch.testing.assert_close(literal_ann_head(head, features), head(features), rtol=1e-4, atol=1e-5)


def test_network_in_every_form():
    table = networks.network((64, 96), CPU, repeat=1, compiled=False, **TINY)
    rows = {name: row for name, row in by_name(table).items() if "Table 2" not in name}
    assert "ANN Table 2: PSANet, ResNet-101" in by_name(table)
    for name, row in rows.items():
        assert row["error"] is None or row["error"] < (0.1 if "bfloat16" in name else 1e-4), name
        assert row["parameters"] > 0
    assert rows["folded"]["multiply_adds"] < rows["eager"]["multiply_adds"]
    assert rows["folded"]["parameters"] < rows["eager"]["parameters"]


def test_distribution_adds_parameters():
    rows = by_name(networks.distribution((64, 64), CPU, 1, TINY["backbone"], channels=8))
    assert rows["ASPP + LDv1"]["parameters_difference"] > 0
    assert (
        rows["ASPP + LDv2"]["parameters"] == rows["ASPP"]["parameters"] + rows["ASPP + LDv2"]["parameters_difference"]
    )
    assert rows["GALD Table IV: + ASPP + LDv2"]["parameters_difference"] == 2.3e6


def test_training_step_learns():
    """The measured step is a real one: the loss on the one batch goes down."""
    table = steps.train_step((33, 33), CPU, repeat=1, models=("ann",), **TINY)
    assert table.rows[0]["name"] == "ann, float32"
    for row in table.rows:
        assert row["images_per_second"] == 2 / row["seconds"]
        assert row["multiply_adds"] > 0
    options = {name: value for name, value in TINY.items() if name != "backbone"}
    images, labels = torch.rand(2, 3, 33, 33), torch.zeros(2, 33, 33, dtype=torch.int64)
    run = steps.step("ann", TINY["backbone"], images, labels, steps.Form("float32", True), options)
    losses = [float(run()) for _ in range(12)]
    assert losses[-1] < 0.95 * losses[0]


def test_loader_profile():
    table = loading.loader((33, 49), repeat=1, picture=(64, 128), images=2)
    rows = by_name(table)
    steps = [row for row in table.rows if "share" in row]
    assert [row["name"] for row in steps][:4] == [
        "decode the image",
        "decode the label",
        "map the label",
        "RandomScaleCrop",
    ]
    assert sum(row["share"] for row in steps) == pytest.approx(1)
    assert rows["all of it, from files, one process"]["images_per_second"] > 0
    assert rows["each of 1 workers"]["images_per_second"] > 0


def test_figures_are_spelt_with_units():
    shown = [
        ("seconds", 0.01234, "12.3 ms"),
        ("seconds", 12.345, "12.35 s"),
        ("x seconds", 1.5, "1.5 s"),
        ("extra_memory", 8.2e9, "8,200 MB"),
        ("ratio", 3.333, "3.33x"),
        ("spread", 0.124, "±12 %"),
        ("multiply_adds", 4.746e9, "4.75 G"),
        ("parameters", 63.17e6, "63.17 M"),
        ("parameters_difference", 4e5, "+0.40 M"),
        ("error", 2e-6, "2.0e-06"),
        ("share", 0.25, "25.0 %"),
        ("images_per_second", 12.345, "12.35"),
        ("error", None, "-"),
    ]
    assert [spell(column, value) for column, value, _ in shown] == [text for *_, text in shown]


def test_json_holds_every_figure(tmp_path):
    table = Table("t", {"name": ""}, [{"name": "a", "seconds": 0.5}], {"device": "d"}, ("n",))
    written = json.loads(write_json(tmp_path / "x.json", [table]).read_text())
    assert written == [{"title": "t", "device": "d", "rows": [{"name": "a", "seconds": 0.5}], "notes": ["n"]}]


def test_the_verb(tmp_path, capsys):
    path = tmp_path / "head.json"
    words = ["benchmark", "local-attention", "--model", "ann"]
    assert main(words) == 2
    assert "--model has no effect on `benchmark local-attention`" in capsys.readouterr().err
    words = ["benchmark", "head", "--backbone", TINY["backbone"], "--size", "2", "--repeat", "1", "--json", str(path)]
    assert main(words) == 0
    assert "mmseg wiring, folded" in capsys.readouterr().out
    assert json.loads(path.read_text())[0]["rows"][0]["seconds"] > 0


def test_reference_softmax_rows_sum_to_one():
    torch.testing.assert_close(reference.normalise(torch.randn(1, 3, 5) * 50, "softmax").sum(2), torch.ones(1, 3))
