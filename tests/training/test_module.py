"""The LightningModule: what it leaves frozen, whatever the mode, and how it validates."""

from __future__ import annotations

from dataclasses import replace

import lightning
import pytest
import torch
from torch import nn

import nonlocalseg as nls
from nonlocalseg.inference.engine import infer
from nonlocalseg.metrics import SegmentationMetric
from nonlocalseg.recipes.schema import Phase
from nonlocalseg.training.module import SegmentationTraining
from nonlocalseg.training.optimisation import parameter_groups
from nonlocalseg.view import View

PHASE = Phase(data="synthetic", steps=100, rate=0.01)


@pytest.fixture
def model() -> nls.Segmenter:
    return nls.create_model("fcn", "mobilenetv2_035", num_classes=3, channels=8, auxiliary_channels=8)


def test_frozen_backbone(model):
    module = SegmentationTraining(model, replace(PHASE, frozen_backbone=True), 0)
    assert not model.backbone.training
    assert model.head.training
    assert not any(parameter.requires_grad for parameter in model.backbone.parameters())
    frozen = {id(parameter) for parameter in model.backbone.parameters()}
    assert not frozen & {id(p) for group in parameter_groups(model, PHASE) for p in group["params"]}
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


@pytest.mark.parametrize("short_side", [None, 64])
def test_validation_sees_the_images_as_the_phase_says(model, short_side):
    module = SegmentationTraining(model, replace(PHASE, short_side=short_side), 0).eval()
    module.trainer = lightning.Trainer(barebones=True, accelerator="cpu", devices=1)
    image, label = torch.rand(1, 3, 48, 56), torch.randint(3, (1, 48, 56))
    module.validation_step({"image": image, "label": label}, 0)
    module.validation_step({"image": image}, 1)  # has no label, and no part
    module.on_validation_epoch_end()
    expected = SegmentationMetric(3)
    expected.update(infer(model, image, View(short_side=short_side)).argmax(1), label)
    assert module.scores is not None
    assert torch.equal(module.scores.confusion, expected.compute().confusion)
    assert module.metric.confusion.sum() == 0


def test_further_outputs_of_a_head_are_trained():
    options = {"channels": 8, "auxiliary": False, "num_codes": 2}
    model = nls.create_model("encnet", "mobilenetv2_035", num_classes=3, presence_weight=0.3, **options)
    module = SegmentationTraining(model, replace(PHASE, frozen_batchnorm=True), 0)
    assert module.loss.further == {"presence": 0.3}
    assert not model.head.encoding.norm.training
    losses = module.training_step({"image": torch.rand(2, 3, 32, 48), "label": torch.randint(3, (2, 32, 48))}, 0)
    torch.testing.assert_close(losses["loss"], losses["main"] + 0.3 * losses["presence"])
    model = nls.create_model("encnet", "mobilenetv2_035", num_classes=3, presence_weight=0, **options)
    assert set(model.train()(torch.rand(2, 3, 32, 48))) == {"out"}
