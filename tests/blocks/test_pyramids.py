"""Pyramids, adaptive contexts, object contexts, graphs: the literal equations, forward and gradient, also when folded."""

from __future__ import annotations

import copy

import pytest
import torch
from test_non_local import randomise
from torch import nn

from nonlocalseg.blocks import reference_pyramids as literal
from nonlocalseg.blocks.adaptive import AdaptiveContext, DynamicFilter, depthwise
from nonlocalseg.blocks.aggregation import ASPP, PSP
from nonlocalseg.blocks.basic import Affine, BatchNorm2d, ConvNormAct
from nonlocalseg.blocks.dense import DenseASPP
from nonlocalseg.blocks.folding import fold_norm
from nonlocalseg.blocks.graphs import CoordinateGraph, DualGraph, FeatureGraph
from nonlocalseg.blocks.objects import ObjectAttention, represent
from nonlocalseg.blocks.sampling import AverageSampling

SIZES = [(17, 33), (24, 40), (3, 5)]


def cells(x, size):
    return AverageSampling((size,))(x)[0]


# Name -> block, ours and the equation, on maps of 6 channels.
CASES = {
    "psp": (PSP(6, 8, 4), lambda b, x: b(x), literal.psp),
    "psp, its cells first": (PSP(6, 8, 4, map_first=False, align_corners=True), lambda b, x: b(x), literal.psp),
    "aspp": (ASPP(6, 8, 4, (2, 4)), lambda b, x: b(x), literal.aspp),
    "aspp, separable": (
        ASPP(6, 8, 4, (2, 4), separable=True, kernel_size=1),
        lambda b, x: b(x),
        literal.aspp,
    ),
    "adaptive context": (AdaptiveContext(6, 4, 3), lambda b, x: b(x, cells(x, 3)), literal.adaptive_context),
    "adaptive context, not fused": (
        AdaptiveContext(6, 4, 2, fusion=False),
        lambda b, x: b(x, cells(x, 2)),
        literal.adaptive_context,
    ),
    **{
        f"dynamic filter {size}": (
            DynamicFilter(6, 4, fusion=size == 3),
            lambda b, x, size=size: b(x, cells(x, size).unflatten(2, (size, size))),
            lambda b, x, size=size: literal.dynamic_filter(b, x, size),
        )
        for size in (1, 3, 4)
    },
    "object attention": (
        ObjectAttention(6, 4),
        lambda b, x: b(x, represent(x, 2 * x[:, :3])),
        lambda b, x: literal.object_contexts(b, x, 2 * x[:, :3]),
    ),
    "coordinate graph": (CoordinateGraph(6), lambda b, x: b(x), literal.coordinate_graph),
    "feature graph": (FeatureGraph(6, 2), lambda b, x: b(x), literal.feature_graph),
    "dual graph": (DualGraph(6, 4, 3, align_corners=True), lambda b, x: b(x), literal.dual_graph),
    "dense aspp": (DenseASPP(6, 3, 5, (1, 2, 4)), lambda b, x: b(x), literal.dense_aspp),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", CASES)
def test_it_is_its_equation(name, size):
    block, ours, equation = CASES[name]
    block = randomise(copy.deepcopy(block))
    x = torch.randn(2, 6, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = []
    for function in (ours, equation):
        given = x.clone().requires_grad_()
        out = function(block, given)
        weights = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out)
        found.append((out, *torch.autograd.grad((out * weights).sum(), [given, *block.parameters()])))
    for value, expected in zip(*found, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-8, atol=1e-9 * max(1.0, expected.abs().max().item()))


@pytest.mark.parametrize("name", CASES)
def test_it_is_its_equation_when_folded(name):
    block, ours, equation = CASES[name]
    block = randomise(copy.deepcopy(block))
    x = torch.randn(2, 6, 9, 13, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = equation(block, x)
        for module in block.modules():
            if isinstance(module, ConvNormAct):
                fold_norm(module)
        torch.testing.assert_close(ours(block, x), expected, rtol=1e-8, atol=1e-9)


def test_an_affine_map_is_the_norm():
    norm = randomise(BatchNorm2d(5))
    for x in (torch.randn(2, 5, 3, 4, dtype=torch.float64), torch.randn(2, 5, 7, 1, dtype=torch.float64)):
        torch.testing.assert_close(Affine.of(norm)(x), norm(x), rtol=1e-12, atol=1e-12)


class Filtering(nn.Module):
    def forward(self, x, filters):
        return depthwise(x, filters)


@pytest.mark.parametrize("size", [3, 4])
def test_dynamic_filters_export_with_a_free_batch(size):
    batch, height, width = (torch.export.Dim(name, min=2, max=64) for name in ("batch", "height", "width"))
    given = torch.randn(2, 5, 8, 9), torch.randn(2, 5, size, size)
    shapes = ({0: batch, 2: height, 3: width}, {0: batch})
    program = torch.export.export(Filtering(), given, dynamic_shapes=shapes).module()
    for count, sides in ((3, (17, 6)), (5, (4, 33))):
        x, filters = torch.randn(count, 5, *sides), torch.randn(count, 5, size, size)
        torch.testing.assert_close(program(x, filters), depthwise(x, filters), rtol=1e-4, atol=1e-5)


def test_what_a_pixel_takes_from_the_classes_sums_to_one():
    block = randomise(ObjectAttention(6, 4))
    x = torch.randn(2, 6, 5, 7, dtype=torch.float64)
    weights = block.weights(x, represent(x, x[:, :3]))
    assert weights.shape == (2, 3, 5, 7)
    torch.testing.assert_close(weights.sum(1), torch.ones(2, 5, 7, dtype=torch.float64))


def test_the_weights_of_an_adaptive_context_are_those_it_uses():
    block = randomise(AdaptiveContext(6, 4, 3, fusion=False))
    x = torch.randn(1, 6, 5, 7, dtype=torch.float64)
    attended = block.attended(x)
    weights = attended.weights(None)
    assert weights.shape == (1, 35, 9)
    torch.testing.assert_close(attended.weights(torch.tensor([4, 11])), weights[:, [4, 11]])
    y = block.reduce_cells(cells(x, 3)[..., None])[..., 0]
    collected = (weights @ y.transpose(1, 2)).transpose(1, 2).unflatten(2, (5, 7))
    expected = torch.relu(block.residual(collected) + block.reduce(x))
    torch.testing.assert_close(block(x, cells(x, 3)), expected)
