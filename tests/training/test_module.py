"""Schedule, optimizer groups, frozen parts and averaging of the LightningModule."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import nonlocalseg as nls
from nonlocalseg.training.module import SegmentationTraining, averaged, parameter_groups, poly_factor
from nonlocalseg.training.recipes import Phase

PHASE = Phase(data="synthetic", steps=100, rate=0.01, head_rate_multiplier=10.0, weight_decay=5e-4)


@pytest.fixture
def model() -> nn.Module:
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
    assert len(parameter_groups(model, replace(PHASE, head_rate_multiplier=1.0))) == 1


def test_optimizers(model):
    for name, kind in (("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)):
        chosen = SegmentationTraining(model, replace(PHASE, optimizer=name), 0).configure_optimizers()["optimizer"]
        assert isinstance(chosen, kind)
        assert chosen.defaults.get("momentum", 0.9) == 0.9


def test_frozen_backbone(model):
    module = SegmentationTraining(model, replace(PHASE, frozen_backbone=True), 0)
    assert not model.backbone.training
    assert model.head.training
    assert not any(parameter.requires_grad for parameter in model.backbone.parameters())
    assert all(
        id(p) not in {id(q) for q in model.backbone.parameters()}
        for g in parameter_groups(model, PHASE)
        for p in g["params"]
    )
    assert module.training
    module.eval()
    module.train()
    assert not model.backbone.training


def test_frozen_batch_norm(model):
    SegmentationTraining(model, replace(PHASE, frozen_batchnorm=True), 0)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training or norm.weight.requires_grad for norm in norms)
    assert model.backbone.training
    assert model.backbone.body.conv_stem.weight.requires_grad


def test_loss_options_arrive(model):
    phase = replace(
        PHASE, ohem_threshold=0.6, ohem_min_kept=5, ohem_rule="mmseg", auxiliary_weight=0.2, terms={"dice": 2.0}
    )
    loss = SegmentationTraining(model, replace(phase, class_weights=(1.0, 2.0, 3.0)), 0).loss
    assert (loss.threshold, loss.min_kept, loss.rule, loss.auxiliary_weight) == (0.6, 5, "mmseg", 0.2)
    assert loss.terms == {"dice": 2.0}
    assert loss.class_weights.tolist() == [1, 2, 3]
    assert not SegmentationTraining(model, replace(PHASE, ohem=False), 0).loss.ohem


def test_average_of_weights_and_buffers():
    model = nn.BatchNorm2d(1)
    average = averaged(model, 0.8)
    values = [1.0, 2.0, 3.0, 4.0] * 5
    expected = 0.0
    for step, value in enumerate(values):
        nn.init.constant_(model.weight, value)
        model.running_mean.fill_(value)
        model.num_batches_tracked.fill_(step)
        average.update_parameters(model)
        decay = min(0.8, (1 + step) / (10 + step)) if step else 0.0
        expected = decay * expected + (1 - decay) * value
    assert average.module.weight.item() == pytest.approx(expected)
    assert average.module.running_mean.item() == pytest.approx(expected)
    assert average.module.num_batches_tracked == len(values) - 1
    assert not any(parameter.requires_grad for parameter in average.parameters())
