"""Folding is exact for every model, on every kind of backbone, at the border, after saving; it is for evaluation only."""

from __future__ import annotations

import pytest
import torch
from test_models import small
from torch.utils.flop_counter import FlopCounterMode

import nonlocalseg as nls
from nonlocalseg.blocks.folding import FoldedFusion
from nonlocalseg.models.catalog import MODELS
from nonlocalseg.models.wirings import WIRINGS


def prepared(name: str, backbone: str = "test_resnet.r160_in1k", **options):
    """A model in float64 whose norms, biases and W_o are all random."""
    model = small(name, backbone, **options)
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        for key in ("running_mean", "running_var", "weight", "bias"):
            value = getattr(module, key, None)
            if isinstance(value, torch.Tensor) and value.ndim == 1:
                value.data = torch.rand(value.shape, generator=generator) + (
                    0.5 if "var" in key or key == "weight" else 0.0
                )
    return model.double().eval()


def assert_same_scores(model, folded, size=(49, 66)) -> None:
    images = torch.rand(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        expected, got = model(images)["out"], folded(images)["out"]
    assert (got - expected).abs().max() <= 1e-9 * expected.abs().max()


@pytest.mark.parametrize("name", MODELS)
def test_every_model_folds_exactly(name):
    model = prepared(name)
    folded = nls.fold(model)
    assert_same_scores(model, folded)
    assert folded.auxiliary is None
    assert not [m for m in folded.modules() if isinstance(m, torch.nn.BatchNorm2d)]


@pytest.mark.parametrize("wiring", [name for name in WIRINGS if name != "default"])
@pytest.mark.parametrize("name", ["nonlocal", "ann", "fnb_nonlocal", "galdv1"])
def test_every_wiring_folds(name, wiring):
    model = prepared(name, wiring=wiring)
    size = (160, 168) if wiring == "official" and name == "galdv1" else (49, 66)
    assert_same_scores(model, nls.fold(model), size)


@pytest.mark.parametrize(
    "options",
    [
        {"fuse": (3, 4), "channels": 8},
        {"normalisation": "rescale"},
        {"normalisation": "none"},
        {"sampling": "pyramid_max"},
        {"sampling": "pyramid_random"},
    ],
)
def test_every_kind_of_fusion_folds(options):
    model = prepared("ann", **options)
    folded = nls.fold(model)
    assert isinstance(folded.head.fusion, FoldedFusion)
    assert_same_scores(model, folded)


def test_fusion_stays_where_folding_it_would_cost_more():
    model = prepared("ann", channels=256)
    folded = nls.fold(model)
    assert not isinstance(folded.head.fusion, FoldedFusion)
    assert_same_scores(model, folded)


@pytest.mark.parametrize(
    "backbone", ["resnet10t", "mobilenetv2_035", "efficientnet_lite0", "test_convnext.r160_in1k", "test_vit.r160_in1k"]
)
def test_every_kind_of_backbone_folds(backbone):
    model = prepared("fcn", backbone)
    folded = nls.fold(model)
    assert_same_scores(model, folded)
    assert not [m for m in folded.modules() if isinstance(m, torch.nn.BatchNorm2d)]


def test_a_convolution_whose_result_is_a_feature_keeps_its_norm():
    model = prepared("fcn", "ghostnet_050")
    folded = nls.fold(model)
    images = torch.rand(1, 3, 65, 49, dtype=torch.float64)
    with torch.no_grad():
        plain, same = model.backbone(images), folded.backbone(images)
    for stage, feature in plain.items():
        torch.testing.assert_close(same[stage], feature)
    assert_same_scores(model, folded)
    assert [name for name, m in folded.named_modules() if isinstance(m, torch.nn.BatchNorm2d)] == ["backbone.body.bn1"]


def test_folded_ann_does_less():
    model = small("ann", "resnet18", channels=64).eval()
    assert isinstance(nls.fold(model).head.fusion, FoldedFusion)
    counts = []
    for network in (model.head, nls.fold(model).head):
        features = {stage: torch.rand(1, c, 16, 24) for stage, c in model.backbone.channels.items()}
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(features)
        counts.append(counter.get_total_flops())
    assert counts[1] < 0.9 * counts[0]


@pytest.mark.parametrize("name", ["ann", "fnb_nonlocal", "galdv2"])
def test_folded_models_are_saved_and_loaded(name, tmp_path):
    folded = nls.fold(prepared(name).float())
    folded.save_pretrained(tmp_path)
    again = nls.from_pretrained(tmp_path)
    assert again.folded
    images = torch.rand(1, 3, 40, 40)
    torch.testing.assert_close(again(images)["out"], folded(images)["out"])
    again.save_pretrained(tmp_path / "again")
    assert nls.from_pretrained(tmp_path / "again").folded


def test_folding_twice_is_folding_once():
    folded = nls.fold(prepared("ann"))
    assert_same_scores(folded, nls.fold(folded))


def test_attention_is_the_same():
    model = prepared("ann", fuse=(3, 4))
    images = torch.rand(1, 3, 40, 56, dtype=torch.float64)
    plain, folded = model.attention_maps(images), nls.fold(model).attention_maps(images)
    assert plain.keys() == folded.keys()
    for name, weights in plain.items():
        torch.testing.assert_close(folded[name], weights)


def test_it_is_for_evaluation_only():
    with pytest.raises(ValueError, match="call model"):
        nls.fold(small("ann").train())
    folded = nls.fold(small("ann").eval())
    with pytest.raises(ValueError, match="train the model it was folded from"):
        folded.train()
    assert folded.eval() is folded


@pytest.mark.parametrize("name", ["ann", "fnb_nonlocal", "galdv2"])
def test_folded_models_compile(name):
    torch.compiler.reset()
    folded = nls.fold(small(name).eval())
    images = torch.rand(1, 3, 40, 56)
    with torch.no_grad():
        compiled = torch.compile(folded, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(images)["out"], folded(images)["out"])
