"""Whole heads against stored outputs of mmsegmentation and of the official codes, at small widths."""

from __future__ import annotations

import pytest
import torch
from golden_files import Stored, assert_matches, assert_within, load_mapped, portable_fill
from torch import nn

from nonlocalseg.conversion import mmseg_heads, official
from nonlocalseg.models.catalog import MODELS
from nonlocalseg.models.creation import resolve

pytestmark = pytest.mark.shared


class OnStages(nn.Module):
    """A head called with its stages as separate inputs, lowest first."""

    def __init__(self, head: nn.Module, *stages: int) -> None:
        super().__init__()
        self.head, self.stages = head, stages

    def forward(self, *maps):
        return self.head(dict(zip(self.stages, maps, strict=True)))


def build(model: str, wiring: str, inputs: dict[int, int], **options) -> nn.Module:
    """The head as `create_model` makes it, for stages of the stored widths."""
    config = resolve(model, "resnet50", [str(index) for index in range(5)], None, wiring, options)
    return MODELS[model].head.build(config.options, inputs, 5)


def of_head(table: dict[str, str]) -> dict[str, str]:
    """A table of a whole network reduced to its head, without the head's own prefix."""
    prefix = "decode_head."
    return {k.removeprefix(prefix): v.removeprefix("head.") for k, v in table.items() if v.startswith("head.")}


@pytest.mark.parametrize(("name", "sizes"), [("", (1, 3, 6, 8)), ("_scales1236", (1, 2, 3, 6))])
def test_ann_of_mmsegmentation(shared, name, sizes):
    stored = Stored(shared / f"golden/a_mmseg_annhead{name}.safetensors")
    options = {"channels": 16, "key_channels": 8, "value_channels": 8, "anchor_sizes": sizes}
    head = build("ann", "mmseg", {4: 32, 5: 64}, **options)
    table = mmseg_heads.ANN.table
    load_mapped(head, stored.state, table)
    assert_matches(stored, OnStages(head, 4, 5), "low", "high", parameters=(head, table))


@pytest.mark.parametrize(
    ("name", "model", "table", "options"),
    [
        ("fcnhead", "fcn", mmseg_heads.FCN.table, {}),
        ("nlhead", "nonlocal", mmseg_heads.NON_LOCAL.table, {"key_channels": 8, "value_channels": 8}),
        ("psphead", "psp", mmseg_heads.PSP.table, {}),
        ("aspphead", "aspp", mmseg_heads.ASPP.table, {"aggregate_channels": 16, "aspp_rates": (3, 6, 9)}),
    ],
)
def test_other_heads_of_mmsegmentation(shared, name, model, table, options):
    stored = Stored(shared / f"golden/c_mmseg_{name}.safetensors")
    head = build(model, "mmseg", {5: 32}, channels=16, **options)
    assert_matches(stored, OnStages(load_mapped(head, stored.state, table), 5), "x")


def test_auxiliary_head_of_mmsegmentation(shared):
    stored = Stored(shared / "golden/c_mmseg_fcnhead_aux.safetensors")
    head = build("fcn", "mmseg", {5: 32}, channels=16, convs=1, combine=False)
    assert_matches(stored, OnStages(load_mapped(head, stored.state, mmseg_heads.FCN.table), 5), "x")


def test_decoder_of_the_official_ann(shared):
    stored = Stored(shared / "golden/d_official_ann_decoder.safetensors")
    main = {k: v for k, v in stored.state.items() if not k.startswith("dsn")}
    head = build("ann", "official", {4: 32, 5: 64}, channels=16, key_channels=8, value_channels=8)
    table = of_head(official.ANN_OFFICIAL)
    load_mapped(head, main, table)
    assert_matches(stored, OnStages(head, 4, 5), "low", "high", output="out.0", parameters=(head, table))
    auxiliary = build("fcn", "official", {5: 32}, channels=16)
    table = {k: v.removeprefix("auxiliary.") for k, v in official.ANN_OFFICIAL.items() if k.startswith("dsn")}
    load_mapped(auxiliary, {k: v for k, v in stored.state.items() if k.startswith("dsn")}, table)
    with torch.no_grad():
        out = OnStages(auxiliary, 5)(stored.inputs["low"])
    assert_within(out, stored["out.1"], 1e-5)


def test_small_official_gald_head(shared):
    stored = Stored(shared / "golden/e_gald_galdhead_small.safetensors")
    head = build("galdv1", "official", {5: 24}, channels=16, key_channels=8)
    table = {k.removeprefix("head."): v for k, v in of_head(official.GALD_OFFICIAL).items()}
    assert_matches(stored, OnStages(load_mapped(head, stored.state, table), 5), "x")


def test_full_width_official_gald_head(shared):
    stored = Stored(shared / "golden/e_gald_galdhead_512_portable.safetensors")
    head = build("galdv1", "official", {5: 8})
    table = {k.removeprefix("head."): v for k, v in of_head(official.GALD_OFFICIAL).items()}
    shapes = {}
    for ours, value in head.state_dict().items():
        prefix = max((v for v in table.values() if ours.startswith(v + ".")), key=len)
        source = next(k for k, v in table.items() if v == prefix)
        shapes[source + ours[len(prefix) :]] = list(value.shape)
    # the stored float32 output, up to 22.7, is itself 1.35e-5 from the exact value
    assert_matches(stored, OnStages(load_mapped(head, portable_fill(shapes), table), 5), "x", tolerance=2e-5)
