"""Every distinct network of mmsegmentation 1.2.2's own configs, for the heads that are known: equal, or refused by name.

The cases and their scores are written by `python -m benchmarks.mmsegmentation_configs`.
"""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from golden_files import portable_fill
from small_configs import digest, small

from nonlocalseg.conversion.checkpoints import convert
from nonlocalseg.conversion.config_text import parse, write
from nonlocalseg.conversion.mmseg_config import from_mmseg_config, to_mmseg_config
from nonlocalseg.conversion.mmseg_rules import RULES
from nonlocalseg.conversion.mmseg_writing import to_mmseg
from nonlocalseg.models.creation import create_model

CASES = json.loads((Path(__file__).parent / "mmseg_configs.json").read_text())
EQUAL = {case["name"]: case for case in CASES if "scores" in case}
REFUSED = {case["name"]: case for case in CASES if "refused" in case}
PREPROCESSOR = {"mean": [0, 0, 0], "std": [255, 255, 255], "bgr_to_rgb": True}
# One of each head, and the networks that no config of theirs describes, are computed in every run, all in the slow one.
FIRST = {case["ours"][0]: name for name, case in reversed(EQUAL.items())}
QUICK = [name for name in EQUAL if name in FIRST.values() or ", " in name]


def built(case):
    """Our network of a case, filled with weights by their keys, by way of their checkpoint."""
    config = {"data_preprocessor": PREPROCESSOR, "model": small(case["model"])}
    found = from_mmseg_config(config)
    torch.manual_seed(0)
    model = create_model(found.model, found.backbone, num_classes=3, wiring="mmseg", **found.options)
    keys = to_mmseg(model)["state_dict"]
    assert digest(keys) == case["keys"]
    state = portable_fill({key: list(value.shape) for key, value in keys.items()})
    return convert({"state_dict": state, "meta": {"cfg": write(config)}}, "mmseg")


def compare(case):
    image = portable_fill({"image": [1, 3, 65, 49]})["image"]
    with torch.no_grad():
        model = built(case)
        scores = model(image)["out"].flatten()
    kept = scores[:: scores.numel() // len(case["scores"])][: len(case["scores"])]
    expected = torch.tensor(case["scores"])
    assert (kept - expected).abs().max() <= 2e-5 * expected.abs().max()


@pytest.mark.parametrize("name", QUICK)
def test_small_networks_give_their_scores(name):
    compare(EQUAL[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in EQUAL if name not in QUICK])
def test_all_networks_give_their_scores(name):
    compare(EQUAL[name])


def test_every_case_is_described_as_it_was():
    """What every config becomes here: head, backbone and options."""
    for case in EQUAL.values():
        found = from_mmseg_config({"model": case["model"]})
        options = json.loads(json.dumps(found.options))
        assert [found.model, found.backbone, options] == case["ours"], case["name"]


def test_refused_configs_are_named_in_one_line():
    assert REFUSED
    for case in REFUSED.values():
        with pytest.raises(ValueError, match=r"\w") as caught:
            from_mmseg_config({"model": case["model"]})
        assert str(caught.value) == case["refused"], case["name"]
        assert "\n" not in case["refused"]


def test_written_configs_leave_out_what_their_classes_set_themselves():
    """ResNetV1c takes no deep_stem."""
    small_stem = {"channels": (8, 16, 32, 64), "stem_width": 4}
    for backbone in ("resnet50c", "resnet50d"):
        model = create_model("fcn", backbone, num_classes=2, wiring="mmseg", channels=8, backbone_options=small_stem)
        assert model.config is not None
        written = to_mmseg_config(model.config, model.backbone.channels)[0]["model"]["backbone"]
        assert not {"deep_stem", "avg_down"} & written.keys()


def test_there_are_cases_of_every_rule():
    def last(case):
        heads = case["model"]["decode_head"]
        return (heads[-1] if isinstance(heads, list) else heads)["type"]

    assert {last(case) for case in EQUAL.values()} == {rule.theirs for rule in RULES}


@pytest.mark.parametrize("name", [*EQUAL][::7])
def test_configs_come_back(name):
    """What is written for mmsegmentation describes the network that it was made from."""
    case = EQUAL[name]
    found = from_mmseg_config({"model": small(case["model"])})
    model = create_model(found.model, found.backbone, num_classes=3, wiring="mmseg", **found.options)
    assert model.config is not None
    config, _ = to_mmseg_config(model.config, model.backbone.channels)
    again = from_mmseg_config(parse(write(config)))
    assert (again.model, again.backbone) == (found.model, found.backbone)
    one, other = (create_model(x.model, x.backbone, num_classes=3, wiring="mmseg", **x.options) for x in (found, again))
    assert one.config == other.config


def _one_of_each():
    """One case of each head, and of each backbone with its strides and dilations."""
    found = {}
    for name, case in EQUAL.items():
        backbone = {
            key: case["model"]["backbone"].get(key) for key in ("type", "depth", "strides", "dilations", "style")
        }
        found.setdefault(case["ours"][0], name)
        found.setdefault(json.dumps([backbone, case["model"]["backbone"].get("contract_dilation")]), name)
    return sorted(set(found.values()))


@pytest.mark.parametrize("name", _one_of_each())
def test_every_head_and_backbone_goes_there_and_back(name):
    """The checkpoint that is written builds the same network again, with every weight."""
    config = {"data_preprocessor": PREPROCESSOR, "model": small(EQUAL[name]["model"])}
    found = from_mmseg_config(config)
    model = create_model(found.model, found.backbone, classes=["a", "b", "c"], wiring="mmseg", **found.options)
    again = convert(to_mmseg(model), "mmseg")
    assert model.config is not None
    assert again.config == replace(model.config, converted_from="mmseg")
    wanted, kept = model.state_dict(), again.state_dict()
    assert wanted.keys() == kept.keys()
    assert all(torch.equal(value, kept[key]) for key, value in wanted.items())


# Fields that change the network, and must not be passed over.
ANN = next(case["model"] for name, case in EQUAL.items() if name.startswith("ann/ann_r50"))
CHANGES = {
    "backbone.plugins": [{"cfg": {"type": "ContextBlock"}}],
    "backbone.dcn": {"type": "DCN"},
    "backbone.strides": [1, 1, 2, 1],
    "backbone.dilations": [1, 2, 2, 4],
    "backbone.depth": 26,
    "backbone.in_channels": 4,
    "backbone.conv_cfg": {"type": "ConvWS"},
    "backbone.norm_cfg": {"type": "GN", "num_groups": 32},
    "backbone.something": 1,
    "backbone.type": "HRNet",
    "decode_head.act_cfg": {"type": "LeakyReLU"},
    "decode_head.query_scales": [1, 2],
    "decode_head.out_channels": 1,
    "decode_head.in_index": [0, 2],
    "decode_head.norm_cfg": {"type": "BN", "eps": 1e-3},
    "decode_head.something": 1,
    "decode_head.type": "PIDHead",
    "decode_head.num_classes": "19",
    "neck": {"type": "FPN"},
    "something": 1,
}


@pytest.mark.parametrize("field", CHANGES)
def test_what_our_networks_lack_is_refused_by_its_name(field):
    model = {**copy.deepcopy(ANN)}
    part, _, name = field.rpartition(".")
    (model[part] if part else model)[name] = CHANGES[field]
    with pytest.raises(ValueError, match=name) as caught:
        from_mmseg_config({"model": model})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "option", "expected"),
    [
        ("backbone.style", "caffe", "stride_first", True),
        ("backbone.multi_grid", [1, 2, 4], "multi_grid", (1, 2, 4)),
        ("backbone.strides", [1, 2, 2, 2], "dilations", (2, 4)),
        ("backbone.dilations", [1, 1, 1, 2], "dilations", (1, 2)),
        ("backbone.contract_dilation", False, "dilated_blocks", "all"),
        ("decode_head.key_pool_scales", [1, 2, 4], "anchor_sizes", (1, 2, 4)),
        ("decode_head.align_corners", True, "align_corners", True),
    ],
)
def test_what_they_have_becomes_an_option(field, value, option, expected):
    model = {**copy.deepcopy(ANN)}
    part, _, name = field.rpartition(".")
    model[part][name] = value
    assert from_mmseg_config({"model": model}).options[option] == expected


def test_means_and_channel_order_are_kept():
    found = from_mmseg_config({"model": ANN, "img_norm_cfg": {"mean": [1, 2, 3], "std": [4, 5, 6], "to_rgb": False}})
    assert found.mean == (3 / 255, 2 / 255, 1 / 255)
    assert found.std == (6 / 255, 5 / 255, 4 / 255)
    assert found.reversed_input


def test_configs_are_read_without_running_them():
    text = (
        "import os\nnorm = dict(type='BN')\nx = os.system('false')\nmodel = dict(a=norm, b=[-1, (2, )], c=x, **norm)\n"
    )
    found = parse(text)
    assert repr(found["x"]).startswith("`os.system('false')` of line 3")
    assert "Unread" in type(found["model"]).__name__
    assert parse("norm = dict(type='BN')\nmodel = dict(a=norm, b=[-1, (2, )])")["model"] == {
        "a": {"type": "BN"},
        "b": [-1, (2,)],
    }
    for wrong in ("model = (", "x" * 5_000_000, "(" * 100_000):
        with pytest.raises(ValueError, match="config") as caught:
            parse(wrong)
        assert "\n" not in str(caught.value)
