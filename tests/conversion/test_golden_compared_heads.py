"""The compared heads against stored outputs of mmsegmentation's, their weights mapped by the table that `convert` uses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from golden_files import Stored, assert_matches, assert_within
from safetensors import safe_open
from test_golden_heads import OnStages

from nonlocalseg.conversion import key_maps, mmseg_attending
from nonlocalseg.conversion.mmseg_rules import RULES
from nonlocalseg.heads.base import Watch
from nonlocalseg.models.catalog import MODELS
from nonlocalseg.models.creation import resolve

FILES = sorted((Path(__file__).resolve().parents[1] / "golden" / "heads").glob("*.safetensors"))


class Further(Watch):
    """Keeps the further outputs."""

    def __init__(self):
        self.found = {}

    def further(self, name, output):
        self.found[name] = output()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_gives_the_stored_scores_and_gradients(path):
    with safe_open(path, "pt") as file:
        meta = file.metadata()
    model, channels = meta["model"], {int(k): v for k, v in json.loads(meta["stages"]).items()}
    config = resolve(model, "resnet50", list("abc")[: int(meta["classes"])], None, "mmseg", json.loads(meta["options"]))
    head = MODELS[model].head.build(config.options, channels, int(meta["classes"]))
    stored = Stored(path)
    mapped, unknown = key_maps.renamed(stored.state, next(rule.table for rule in RULES if rule.model == model))
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
    assert {path.stem.rpartition("_")[0] for path in FILES} >= {rule.model for rule in mmseg_attending.RULES}
    assert all(path.stat().st_size <= 120_000 for path in FILES)
