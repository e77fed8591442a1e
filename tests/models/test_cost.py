"""What a call and a model cost, counted by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nonlocalseg.models.cost import model_cost, multiply_adds, parameter_count
from nonlocalseg.models.creation import create_model

BACKBONE = "test_resnet.r160_in1k"


@pytest.mark.parametrize(
    ("run", "count"),
    [
        (lambda x: F.conv2d(x, torch.zeros(5, 4, 3, 3), padding=1), 5 * 4 * 9 * 2 * 6 * 7),
        (lambda x: torch.einsum("bchw,cd->bdhw", x, torch.zeros(4, 9)), 2 * 6 * 7 * 4 * 9),
        (lambda x: F.scaled_dot_product_attention(*3 * [x.flatten(2)[:, None]]), 2 * 2 * 4 * 4 * 42),
        (lambda x: x * x, x_elements := 2 * 4 * 6 * 7),
        (lambda x: nn.BatchNorm2d(4).eval()(x), x_elements),
        (lambda x: F.adaptive_avg_pool2d(x, 1), x_elements),
        (lambda x: F.adaptive_avg_pool2d(x, (4, 3)), 2 * 4 * 8 * 9),  # bins overlap: 2+2+2+2 rows, 3+3+3 columns
        (lambda x: F.interpolate(x, (12, 14), mode="bilinear"), 4 * 4 * x_elements),
        (lambda x: x + 1, 0),
    ],
)
def test_every_product_is_counted(run, count):
    with torch.no_grad():
        assert multiply_adds(lambda: run(torch.ones(2, 4, 6, 7)))[0] == count


def test_cost_of_a_model_is_that_of_its_layers():
    """Against a count by hand, layer by layer: convolutions, norms, and the resizing of the scores."""
    model = create_model("fcn", BACKBONE, num_classes=3, channels=8, auxiliary=False).eval()
    counted = {nn.Conv2d: 0, nn.BatchNorm2d: 0}

    def add(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            counted[nn.Conv2d] += output.shape[2] * output.shape[3] * module.weight.numel()
        else:
            counted[nn.BatchNorm2d] += inputs[0].numel()

    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.BatchNorm2d)):
            module.register_forward_hook(add)
    with torch.no_grad():
        model(torch.rand(1, 3, 64, 96))
    parameters, operations = model_cost("fcn", BACKBONE, (64, 96), 3, channels=8)
    assert parameters == parameter_count(model)
    assert operations == sum(counted.values()) + 4 * 3 * 64 * 96


def test_cost_is_that_of_the_model_that_runs():
    """Counted on shapes alone, and on numbers."""
    model = create_model("ann", BACKBONE, num_classes=3, auxiliary=False).eval()
    with torch.no_grad():
        counted, _ = multiply_adds(lambda: model(torch.rand(1, 3, 64, 96)))
    assert model_cost("ann", BACKBONE, (64, 96), 3)[1] == counted
