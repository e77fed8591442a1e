"""A head written here, in a few lines, gets everything that a head of the library has."""

from __future__ import annotations

import inspect
import sys

import pytest
import test_models as contract
import torch
from test_folding import test_every_model_folds_exactly as folds_exactly
from test_heads import test_heads_export_with_free_sizes as exports
from torch import nn

import nonlocalseg as nls
from nonlocalseg.blocks.basic import ConvNormAct
from nonlocalseg.blocks.non_local import APNB
from nonlocalseg.blocks.sampling import AverageSampling
from nonlocalseg.cli import main
from nonlocalseg.heads.base import SILENT, Head, HeadOptions
from nonlocalseg.models.catalog import MODELS, Model
from nonlocalseg.values import Count, value

# --- The new head: one dataclass, one class, one catalog line ----------------------------------------------------


@value
class TwiceOptions(HeadOptions):
    """A narrow map that attends to itself, twice."""

    channels: Count = 64
    "Channels of the narrow map."
    key_channels: Count = 32
    "Channels of queries and keys."


class TwiceHead(Head[TwiceOptions]):
    """1x1 convolution, the same APNB twice, classifier."""

    def __init__(self, reduce: ConvNormAct, block: APNB, classifier: nn.Conv2d) -> None:
        super().__init__()
        self.reduce, self.block, self.classifier = reduce, block, classifier

    @classmethod
    def build(cls, options, channels, num_classes):
        block = APNB(options.channels, AverageSampling((1, 3)), key_channels=options.key_channels)
        return cls(ConvNormAct(channels[5], options.channels), block, nn.Conv2d(options.channels, num_classes, 1))

    def forward(self, features, watch=SILENT):
        x = self.block(self.reduce(features[5]))
        watch.attention("twice", "the second pass", lambda: self.block.attended(x))
        return self.classifier(self.block(x))


ENTRY = Model("the same APNB twice", TwiceHead, TwiceOptions())

# -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def listed(monkeypatch):
    monkeypatch.setitem(MODELS, "twice", ENTRY)


def test_it_is_short():
    source = inspect.getsource(sys.modules[__name__])
    between = source.split("# ---")[1].split("# ---")[0]
    assert len([line for line in between.splitlines() if line.strip()]) < 40


def test_the_contract_holds(tmp_path):
    contract.test_scores_have_the_images_size_and_batch_one_trains("twice", (65, 33))
    contract.test_saved_and_loaded_it_predicts_the_same("twice", tmp_path)
    contract.test_compiles_without_graph_breaks("twice")
    contract.test_channels_last_changes_nothing("twice")
    contract.test_attention_maps_come_on_demand("twice")
    for wiring in ("default", "official", "mmseg", "paper"):
        contract.test_every_wiring_of_every_model_runs("twice", wiring)
    contract.test_modern_backbones("twice", "test_convnext.r160_in1k")
    folds_exactly("twice")
    exports("twice")


def test_its_options_are_checked():
    assert (
        nls.create_model("twice", "test_resnet.r160_in1k", num_classes=2, channels="48").head.reduce.conv.out_channels
        == 48
    )
    for options, message in (
        ({"channels": 0}, "channels: 0; give 1 or more"),
        ({"chanels": 4}, "unknown option 'chanels': did you mean 'channels'"),
        ({"fuse": (4,)}, "option fuse has no effect on model 'twice'"),
    ):
        with pytest.raises(ValueError, match=message):
            nls.create_model("twice", "test_resnet.r160_in1k", num_classes=2, **options)


def test_the_command_line_knows_it(capsys, tmp_path):
    assert (
        main(["list", "models", "--cost", "--backbone", "test_resnet.r160_in1k", "--size", "32", "--model", "twice"])
        == 0
    )
    shown = capsys.readouterr().out
    assert "the same APNB twice" in shown
    assert "key_channels" in shown
    assert "Channels of queries and keys" in shown
    small = [
        "--backbone",
        "test_resnet.r160_in1k",
        "--data",
        "synthetic",
        "--steps",
        "1",
        "--batch-size",
        "2",
        "--workers",
        "0",
    ]
    words = [
        "train",
        "--model",
        "twice",
        *small,
        "--crop",
        "48",
        "64",
        "--val-split",
        "none",
        "--out",
        str(tmp_path / "run"),
    ]
    assert main([*words, "--model-options", "channels=8", "key_channels=4"]) == 0
    assert nls.from_pretrained(tmp_path / "run").config.options == TwiceOptions(channels=8, key_channels=4)
    capsys.readouterr()
    other = ["--out", str(tmp_path / "other")]
    assert main([*words, *other, "--model-options", "key_chanels=4"]) == 2
    assert "did you mean 'key_channels'" in capsys.readouterr().err


def test_its_attention_is_drawn(tmp_path):
    from nonlocalseg.images import write_image

    model = contract.small("twice").eval()
    model.save_pretrained(tmp_path / "model")
    write_image(tmp_path / "photo.png", (torch.rand(48, 64, 3) * 255).byte().numpy())
    words = ["explain", str(tmp_path / "model"), str(tmp_path / "photo.png"), "--out", str(tmp_path / "seen")]
    assert main([*words, "--kind", "anchors"]) == 0
    assert [path.name for path in (tmp_path / "seen").glob("*twice.png")]
