"""A convolution over maps of several sizes is that over their resized concatenation, in numbers, gradients and export."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nonlocalseg.blocks import reference_pyramids
from nonlocalseg.blocks.joining import interpolation, join

SIZES = [(17, 33), (24, 40), (5, 7)]


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kernel_size", [1, 3])
def test_it_equals_the_concatenation(kernel_size, size, align_corners):
    torch.manual_seed(0)
    conv = nn.Conv2d(3 + 4 + 2 + 5, 6, kernel_size, padding=kernel_size // 2).double()
    sides = (size, (1, 1), (6, 6), (9, 17))
    maps = [torch.randn(2, c, *side, dtype=torch.float64) for c, side in zip((3, 4, 2, 5), sides, strict=True)]
    found = []
    for function in (
        lambda given: join(conv, iter(given), (3, 4, 2, 5), size, align_corners),
        lambda given: reference_pyramids.joined(conv, given, size, align_corners),
    ):
        given = [x.clone().requires_grad_() for x in maps]
        out = function(given)
        weights = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out)
        found.append([out, *torch.autograd.grad((out * weights).sum(), [*given, *conv.parameters()])])
    for ours, literal in zip(*found, strict=True):
        torch.testing.assert_close(ours, literal, rtol=1e-8, atol=1e-8 * literal.abs().max().item())


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("length", "target"), [(1, 5), (6, 1), (6, 33), (40, 7), (3, 3)])
def test_interpolation_is_that_of_the_framework(length, target, align_corners):
    row = torch.randn(1, 1, 1, length, dtype=torch.float64)
    resized = nn.functional.interpolate(row, size=(1, target), mode="bilinear", align_corners=align_corners)
    matrix = interpolation(length, target, align_corners, row)
    torch.testing.assert_close(matrix @ row.flatten(), resized.flatten())


def test_the_layout_of_the_maps_does_not_matter():
    conv = nn.Conv2d(8, 6, 3, padding=1)
    maps = [torch.randn(2, 4, 12, 16), torch.randn(2, 4, 6, 6)]
    expected = join(conv, maps, (4, 4), (12, 16))
    last = [x.contiguous(memory_format=torch.channels_last) for x in maps]
    torch.testing.assert_close(join(conv, last, (4, 4), (12, 16)), expected)
