"""The blocks of the compared heads against their literal equations in float64, forward and gradient."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from test_non_local import randomise
from torch import Tensor, nn

from nonlocalseg.blocks import reference_attention as literal
from nonlocalseg.blocks.basic import ConvNormAct
from nonlocalseg.blocks.criss_cross import CrissCross
from nonlocalseg.blocks.disentangled import DisentangledNonLocal
from nonlocalseg.blocks.dual_attention import ChannelAttention, PositionAttention
from nonlocalseg.blocks.encoding import ContextEncoding
from nonlocalseg.blocks.expectation import ExpectationMaximisation
from nonlocalseg.blocks.global_context import GlobalContext
from nonlocalseg.blocks.interlaced import InterlacedAttention
from nonlocalseg.blocks.pointwise_spatial import PointwiseSpatial


class First(nn.Module):
    """The first of a block's results."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)[0]


# Name -> the block for 6 channels, and its literal form.
CASES: dict[str, tuple[Callable[[], nn.Module], Callable[..., Tensor]]] = {
    "global context": (lambda: GlobalContext(6, 3), literal.global_context),
    "mean context, both ways": (
        lambda: GlobalContext(6, 3, "avg", ("channel_mul", "channel_add")),
        literal.global_context,
    ),
    "multiplied context": (lambda: GlobalContext(6, 3, "att", ("channel_mul",)), literal.global_context),
    "encoding": (lambda: ContextEncoding(6, 4), literal.context_encoding),
    "position attention": (lambda: PositionAttention(6, 2), literal.position_attention),
    "channel attention": (lambda: ChannelAttention(), literal.channel_attention),
    "disentangled": (lambda: DisentangledNonLocal(6, 3), literal.disentangled),
    "disentangled, rescaled": (lambda: DisentangledNonLocal(6, 3, "rescale"), literal.disentangled),
    "disentangled, unscaled": (lambda: DisentangledNonLocal(6, 3, scaled=False, temperature=0.5), literal.disentangled),
    "criss-cross": (lambda: CrissCross(6, 2), literal.criss_cross),
    "expectation": (lambda: ExpectationMaximisation(6, 4), literal.expectation_maximisation),
    "interlaced": (lambda: InterlacedAttention(6, 3, (3, 2)), literal.interlaced),
    "collect": (lambda: PointwiseSpatial(6, (5, 4), "collect"), literal.pointwise_spatial),
    "distribute": (lambda: PointwiseSpatial(6, (5, 4), "distribute"), literal.pointwise_spatial),
    "collect, wide": (lambda: PointwiseSpatial(6, (19, 17), "collect", factor=3.0), literal.pointwise_spatial),
    "distribute, wide": (lambda: PointwiseSpatial(6, (19, 17), "distribute"), literal.pointwise_spatial),
    "collect, sums": (lambda: PointwiseSpatial(6, (7, 7), "collect", softmax=False), literal.pointwise_spatial),
    "distribute, sums": (lambda: PointwiseSpatial(6, (7, 7), "distribute", softmax=False), literal.pointwise_spatial),
}


def made(name: str) -> tuple[nn.Module, nn.Module, Callable[[Tensor], Tensor]]:
    """The block with random weights, the module that gives its map, and the literal form of that."""
    make, equation = CASES[name]
    torch.manual_seed(0)
    block = randomise(make())
    whole = First(block) if isinstance(block, ContextEncoding) else block
    return block, whole, lambda x: equation(block, x)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("size", [(5, 7), (1, 1), (8, 6)])
def test_it_is_its_equation(name, size):
    block, whole, equation = made(name)
    x = torch.randn(2, 6, *size, dtype=torch.float64, requires_grad=True)
    ours, expected = whole(x), equation(x)
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-10)
    if name == "expectation":  # learns nothing and hands no gradient back
        assert not ours.requires_grad
        return
    weight = torch.randn_like(expected)
    leaves = [x, *(p for p in block.parameters() if p.requires_grad)]
    got, wanted = (torch.autograd.grad((out * weight).sum(), leaves, allow_unused=True) for out in (ours, expected))
    for mine, theirs in zip(got, wanted, strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_inference_is_the_same_function(name):
    """Without gradients other orders of the products may be taken."""
    _, whole, equation = made(name)
    for size in ((5, 7), (9, 4)):
        x = torch.randn(2, 6, *size, dtype=torch.float64)
        with torch.no_grad():
            torch.testing.assert_close(whole(x), equation(x), rtol=1e-9, atol=1e-10)


def test_a_convolution_over_a_concatenation():
    conv = randomise(ConvNormAct(5, 3, 3, bias=True))
    a, b = (torch.randn(2, count, 6, 5, dtype=torch.float64, requires_grad=True) for count in (2, 3))
    whole = conv(torch.cat([a, b], dim=1))
    torch.testing.assert_close(conv.over(a, b), whole)
    for mine, theirs in zip(
        *(torch.autograd.grad(out.square().sum(), (a, b)) for out in (conv.over(a, b), whole)), strict=True
    ):
        torch.testing.assert_close(mine, theirs)
