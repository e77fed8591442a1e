"""Schedule, optimizer groups, loss and the average of weights."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import nonlocalseg as nls
from nonlocalseg import losses
from nonlocalseg.recipes.schema import LossTerm, OhemRule, Phase
from nonlocalseg.training.optimisation import (
    block_depths,
    make_optimizer,
    moving_average,
    parameter_groups,
    phase_loss,
    poly_factor,
)

PHASE = Phase(data="synthetic", steps=100, rate=0.01, head_rate_multiplier=10.0, weight_decay=5e-4)


@pytest.fixture
def model() -> nls.Segmenter:
    return nls.create_model("fcn", "mobilenetv2_035", num_classes=3, channels=8, auxiliary_channels=8)


def test_poly_schedule():
    assert poly_factor(0, PHASE) == 1
    assert poly_factor(50, PHASE) == pytest.approx(0.5**0.9)
    assert poly_factor(50, replace(PHASE, power=2.0)) == pytest.approx(0.25)
    assert poly_factor(100, PHASE) == 0
    assert poly_factor(100, replace(PHASE, min_rate=1e-4)) == pytest.approx(0.01)


def test_warm_up_is_linear_then_poly():
    warm = replace(PHASE, warmup_steps=9)
    assert [poly_factor(step, warm) / poly_factor(step, PHASE) for step in (0, 4, 9, 50)] == pytest.approx(
        [0.1, 0.5, 1, 1]
    )


def test_groups(model):
    groups = parameter_groups(model, replace(PHASE, norm_decay=False))
    found = {(group["lr"], group["weight_decay"]): group["params"] for group in groups}
    assert set(found) == {(rate, decay) for rate in (0.01, 0.1) for decay in (0.0, 5e-4)}
    assert all(parameter.ndim == 1 for (_, decay), group in found.items() for parameter in group if decay == 0)
    backbone = {id(parameter) for parameter in model.backbone.parameters()}
    assert {id(p) for (rate, _), group in found.items() for p in group if rate == 0.01} == backbone
    assert sum(len(group) for group in found.values()) == len(list(model.parameters()))
    same = parameter_groups(model, replace(PHASE, head_rate_multiplier=1.0, weight_decay=0.0))
    assert [len(group["params"]) for group in same] == [len(group["params"]) for group in groups]
    assert {(group["lr"], group["weight_decay"]) for group in same} == {(0.01, 0.0)}


def test_nothing_left_to_train(model):
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="every parameter is frozen: nothing is left to train"):
        parameter_groups(model, PHASE)


def test_optimizers(model):
    for name, kind in (("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)):
        chosen = make_optimizer(model, replace(PHASE, optimizer=name))
        assert isinstance(chosen, kind)
        assert chosen.defaults.get("momentum", 0.9) == 0.9


def test_loss_options_arrive():
    phase = replace(
        PHASE, ohem_threshold=0.6, ohem_min_kept=5, ohem_rule="mmseg", auxiliary_weight=0.2, terms={"dice": 2.0}
    )
    loss = phase_loss(replace(phase, class_weights=(1.0, 2.0, 3.0)), 3)
    assert (loss.threshold, loss.min_kept, loss.rule, loss.auxiliary_weight) == (0.6, 5, "mmseg", 0.2)
    assert loss.terms == {"dice": 2.0}
    assert loss.class_weights is not None
    assert loss.class_weights.tolist() == [1, 2, 3]
    assert not phase_loss(replace(PHASE, ohem=False), 3).ohem
    with pytest.raises(ValueError, match="class_weights has 2 numbers for 3 classes: give one each"):
        phase_loss(replace(PHASE, class_weights=(1.0, 2.0)), 3)


def test_words_are_those_of_the_losses():
    assert set(get_args(OhemRule)) == set(get_args(losses.OhemRule))
    for term in get_args(LossTerm):
        losses.SegmentationLoss(terms={term: 1.0})


def test_average_of_weights_and_buffers():
    model = nn.BatchNorm2d(1)
    average = AveragedModel(model, avg_fn=moving_average(0.8), use_buffers=True)
    values = [1.0, 2.0, 3.0, 4.0] * 5
    expected = 0.0
    for step, value in enumerate(values):
        nn.init.constant_(model.weight, value)
        assert model.running_mean is not None
        assert model.num_batches_tracked is not None
        model.running_mean.fill_(value)
        model.num_batches_tracked.fill_(step)
        average.update_parameters(model)
        decay = min(0.8, (1 + step) / (10 + step)) if step else 0.0
        expected = decay * expected + (1 - decay) * value
    assert average.module.weight.item() == pytest.approx(expected)
    assert average.module.running_mean.item() == pytest.approx(expected)
    assert average.module.num_batches_tracked == len(values) - 1


@pytest.mark.parametrize(
    ("backbone", "blocks"),
    [("vit_tiny_patch16_224", 12), ("swin_tiny_patch4_window7_224", 12), ("resnet18", 8), ("convnext_atto", 12)],
)
def test_layer_decay_goes_by_block(backbone, blocks):
    with torch.device("meta"):
        model = nls.create_model("fcn", backbone, num_classes=2, channels=8, auxiliary=False)
    depths = block_depths(model)
    assert set(depths.values()) == set(range(blocks + 1))
    assert list(depths.values()) == sorted(depths.values())
    groups = parameter_groups(model, Phase(rate=1.0, head_rate_multiplier=2.0, layer_decay=0.5))
    rates = {group["lr"] for group in groups}
    assert rates == {2.0, *(0.5 ** (blocks + 1 - depth) for depth in range(blocks + 1))}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    slowest = {names[id(p)] for group in groups if group["lr"] == min(rates) for p in group["params"]}
    assert slowest
    assert not any(".blocks." in name or ".layer1" in name for name in slowest)
