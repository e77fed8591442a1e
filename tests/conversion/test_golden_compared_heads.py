"""The compared heads against stored outputs of mmsegmentation's, their weights mapped by the table that `convert` uses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from golden_files import Stored, assert_matches, assert_within
from safetensors import safe_open
from test_golden_heads import OnStages

from nonlocalseg.conversion import key_maps, mmseg_attending, mmseg_framed, mmseg_pyramids, official
from nonlocalseg.conversion.checkpoints import convert
from nonlocalseg.conversion.mmseg_rules import RULES
from nonlocalseg.conversion.rules import HeadRule, give_fields, take_fields, tupled
from nonlocalseg.heads.base import HeadOptions, Watch
from nonlocalseg.models.catalog import MODELS
from nonlocalseg.models.creation import create_model, resolve
from nonlocalseg.models.wirings import wired
from nonlocalseg.values import changed, names_of, plain

FILES = sorted((Path(__file__).resolve().parents[1] / "golden" / "heads").glob("*.safetensors"))


class Further(Watch):
    """Keeps the further outputs."""

    def __init__(self):
        self.found = {}

    def further(self, name, output):
        self.found[name] = output()


def described(path: Path) -> tuple[dict[str, str], HeadRule]:
    """What a file says of itself, and the rule of its head."""
    with safe_open(path, "pt") as file:
        meta = file.metadata()
    return meta, next(rule for rule in RULES if rule.model == meta["model"])


def options_of(model: str, given: dict) -> HeadOptions:
    """The head's options in the wiring of mmsegmentation."""
    return resolve(model, "resnet50", ["a"], None, "mmseg", given).options


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_fields_are_read_and_written(path):
    meta, rule = described(path)
    theirs, ours = json.loads(meta["their_options"]), options_of(rule.model, json.loads(meta["options"]))
    coarse = theirs.pop("coarse", {})
    taken = take_fields(rule.fields, theirs, "decode_head", frozenset(rule.without_effect))
    taken |= take_fields(rule.coarse or (), coarse, "decode_head[0]", frozenset())
    start = MODELS[rule.model].options
    wiring = {
        name: item for name, item in wired("mmseg", rule.model, "resnet50").items() if name in names_of(type(start))
    }
    found = changed(start, {**wiring, **taken})
    assert {k: v for k, v in plain(found).items() if k not in found.idle()} == {
        k: v for k, v in plain(ours).items() if k not in ours.idle()
    }
    stages = {"stage_channels": {int(stage): count for stage, count in json.loads(meta["stages"]).items()}}
    given = give_fields(rule.fields, {**{n: getattr(found, n) for n in names_of(type(found))}, **stages})
    defaults = {field.name: field.default for field in rule.fields}
    assert {k: tupled(v) for k, v in given.items()} == {k: tupled(v) for k, v in {**defaults, **theirs}.items()}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_gives_the_stored_scores_and_gradients(path):
    meta, rule = described(path)
    channels = {int(k): v for k, v in json.loads(meta["stages"]).items()}
    options = options_of(rule.model, json.loads(meta["options"]))
    head = MODELS[rule.model].head.build(options, channels, int(meta["classes"]))
    stored = Stored(path)
    mapped, unknown = key_maps.renamed(stored.state, rule.table)
    assert not unknown
    counters = {key: value for key, value in head.state_dict().items() if key.endswith("num_batches_tracked")}
    head.load_state_dict(counters | mapped)
    head.eval()
    names = [f"stage{stage}" for stage in channels]
    further = Further()
    with torch.no_grad():
        head({stage: stored.inputs[name] for stage, name in zip(channels, names, strict=True)}, further)
    assert further.found.keys() == stored.below("out.").keys()
    for name, value in further.found.items():
        assert_within(value, stored[f"out.{name}"], 1e-5 * max(1.0, value.abs().max().item()), name)
    assert_matches(stored, ReadOnly(head, stored, names, list(channels)), *read_names(stored, names))


def read_names(stored: Stored, names: list[str]) -> list[str]:
    """The inputs that the head reads: those with a gradient."""
    return [name for name in names if f"grad_w.{name}" in stored]


class ReadOnly(OnStages):
    """The head called with the stages that it reads; it is given the others as they are stored."""

    def __init__(self, head, stored, names, stages):
        super().__init__(head, *stages)
        self.stored, self.names = stored, names

    def forward(self, *maps):
        given = dict(zip(read_names(self.stored, self.names), maps, strict=True))
        like = maps[0]
        return super().forward(*(given.get(n, self.stored.inputs[n].to(like.dtype)) for n in self.names))


def test_every_head_has_its_files():
    assert {path.stem.rpartition("_")[0] for path in FILES} >= {
        rule.model for rule in (*mmseg_attending.RULES, *mmseg_framed.RULES, *mmseg_pyramids.RULES)
    }
    assert all(path.stat().st_size <= 120_000 for path in FILES)


def test_head_of_the_official_dgcnet():
    stored = Stored(FILES[0].parents[1] / "dgc.safetensors")
    options = resolve("dgc", "resnet50", ["a"], None, "official", {"channels": 8}).options
    head = MODELS["dgc"].head.build(options, {5: 8}, 3)
    state = {f"head.{key}": value for key, value in official.two_dimensional(stored.state).items()}
    mapped, unknown = key_maps.renamed(state, official.GALD_DGC)
    assert not unknown
    counters = {key: value for key, value in head.state_dict().items() if key.endswith("num_batches_tracked")}
    head.load_state_dict(counters | {key.removeprefix("head."): value for key, value in mapped.items()})
    assert_matches(stored, OnStages(head.eval(), 5), "stage5")


def test_whole_official_dgcnet_is_recognised():
    details = {"multi_grid": (1, 2, 4), "dilated_blocks": "all"}
    ours = create_model("dgc", "resnet50s", num_classes=4, wiring="official", **details)
    state, extra = key_maps.renamed_back(ours.state_dict(), official.GALD_DGC)
    assert extra == ["mean", "std"]
    flat = ("head.dualgcn.conv_", "head.dualgcn.gcn_local_attention.conv_")
    state = {key: value[..., 0] if key.startswith(flat) else value for key, value in state.items()}
    assert sum(value.ndim == 3 for value in state.values()) == 3
    state = {key: value for key, value in state.items() if not key.startswith("dsn.4.")}  # DualSeg's is dsn.3
    found = convert(state, "gald-official")
    assert found.config.flat() == ours.config.flat()
    for key, value in found.head.state_dict().items():
        assert torch.equal(value, ours.head.state_dict()[key]), key
