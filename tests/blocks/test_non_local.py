"""NB, APNB, FNB and AFNB: against the literal equations in float64, forward and gradient, and against stored outputs."""

from __future__ import annotations

import itertools

import pytest
import torch
from golden_files import Stored, assert_matches, load_mapped
from torch import nn

from nonlocalseg.blocks import reference
from nonlocalseg.blocks.non_local import AFNB, APNB, CommonFusion, FusionNonLocal, NonLocal
from nonlocalseg.blocks.sampling import AverageSampling, MaxSampling, RandomSampling
from nonlocalseg.conversion.key_maps import conv_norm
from nonlocalseg.conversion.mmseg_heads import mmseg_attention
from nonlocalseg.conversion.official import ann_attention

SAMPLINGS = {
    "all": lambda: None,
    "pyramid": lambda: AverageSampling((1, 3, 6, 8)),
    "max": lambda: MaxSampling((4,)),
    "random": lambda: RandomSampling((2, 3)),
}
MAPS = [(9, 7), (5, 11), (1, 1)]  # the last two are smaller than some bins


def randomise(module: nn.Module) -> nn.Module:
    """Weights, statistics and the zero-initialised W_o made random, so that nothing is hidden."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.4
    for name, buffer in module.named_buffers():
        if name.endswith("running_var"):
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    return module.double().eval()


def assert_equal_to_literal(block, *inputs: torch.Tensor) -> None:
    leaves = [x.clone(memory_format=torch.preserve_format).requires_grad_() for x in inputs]
    copies = [x.clone().contiguous().requires_grad_() for x in inputs]
    ours, literal = block(*leaves), reference.attending_block(block, *copies)
    torch.testing.assert_close(ours, literal, rtol=1e-9, atol=1e-10)
    weight = torch.randn(literal.shape, dtype=literal.dtype, generator=torch.Generator().manual_seed(1))
    parameters = [p for p in block.parameters() if p.requires_grad]
    got = torch.autograd.grad((ours * weight).sum(), leaves + parameters, allow_unused=True)
    expected = torch.autograd.grad((literal * weight).sum(), copies + parameters, allow_unused=True)
    for mine, theirs in zip(got, expected, strict=True):
        theirs = torch.zeros_like(mine) if theirs is None and mine is not None else theirs
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(
    ("sampling", "output", "embedding", "share"),
    list(itertools.product(SAMPLINGS, ("cat_conv", "cat", "residual"), ("conv", "conv_norm_act"), (True, False))),
)
def test_block_is_its_equation(sampling, output, embedding, share):
    block = NonLocal(
        12,
        key_channels=5,
        value_channels=7,
        sampling=SAMPLINGS[sampling](),
        output=output,
        embedding=embedding,
        share=share,
    )
    assert_equal_to_literal(randomise(block), torch.randn(2, 12, 9, 7, dtype=torch.float64))


@pytest.mark.parametrize(("sampling", "normalisation"), list(itertools.product(SAMPLINGS, ("rescale", "none"))))
def test_other_normalisations(sampling, normalisation):
    block = NonLocal(6, key_channels=4, sampling=SAMPLINGS[sampling](), normalisation=normalisation, dropout=0.3)
    assert_equal_to_literal(randomise(block), torch.randn(2, 6, 5, 8, dtype=torch.float64))


@pytest.mark.parametrize(("sampling", "size"), list(itertools.product(SAMPLINGS, MAPS)))
def test_any_map_size_and_batch_of_one(sampling, size):
    block = randomise(NonLocal(6, key_channels=4, sampling=SAMPLINGS[sampling]()))
    assert_equal_to_literal(block, torch.randn(1, 6, *size, dtype=torch.float64))


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_channels_last_gives_the_same_and_stays(sampling):
    block = randomise(NonLocal(6, key_channels=4, sampling=SAMPLINGS[sampling]()))
    x = torch.randn(2, 6, 9, 7, dtype=torch.float64).to(memory_format=torch.channels_last)
    assert_equal_to_literal(block, x)
    assert block(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("cheap", [True, False])
def test_both_orders_of_the_paper_form(cheap):
    """Logits from the input itself where that is cheaper, from the query map where it is not: the same numbers."""
    channels, width = (40, 30) if cheap else (40, 4)
    block = APNB(channels, AverageSampling((1, 2)), key_channels=width, embedding="conv", share=False, output="cat")
    assert_equal_to_literal(randomise(block), torch.randn(2, channels, 6, 5, dtype=torch.float64))


@pytest.mark.parametrize(
    ("sampling", "output", "embedding", "share_value"),
    list(itertools.product(SAMPLINGS, ("cat_conv", "cat", "residual"), ("conv", "conv_norm_act"), (True, False))),
)
def test_fusion_is_its_equation(sampling, output, embedding, share_value):
    block = FusionNonLocal(
        10,
        (6, 4),
        key_channels=5,
        sampling=SAMPLINGS[sampling](),
        output=output,
        embedding=embedding,
        share_value=share_value,
    )
    high = torch.randn(2, 10, 5, 7, dtype=torch.float64)
    lows = [torch.randn(2, 6, 11, 3, dtype=torch.float64), torch.randn(2, 4, 5, 7, dtype=torch.float64)]
    assert_equal_to_literal(randomise(block), high, *lows)


def test_common_fusion_adds_the_resized_projection():
    block = randomise(CommonFusion(6, (4,)))
    high, low = torch.randn(1, 6, 5, 7, dtype=torch.float64), torch.randn(1, 4, 9, 13, dtype=torch.float64)
    projected = block.projections[0](low)
    expected = high + nn.functional.interpolate(projected, size=(5, 7), mode="bilinear")
    torch.testing.assert_close(block(high, low), expected)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_attention_is_what_forward_uses(sampling):
    block = randomise(NonLocal(6, key_channels=4, sampling=SAMPLINGS[sampling](), output="residual"))
    x = torch.randn(2, 6, 5, 8, dtype=torch.float64)
    weights = block.attended(x).weights(None)
    torch.testing.assert_close(weights.sum(2), torch.ones(2, 40, dtype=torch.float64))
    torch.testing.assert_close(weights, reference.attention_weights(block.branches[0], x, x))
    some = torch.tensor([3, 17])
    torch.testing.assert_close(block.attended(x).weights(some), weights[:, some])
    values = reference.sample(block.branches[0].value(x), block.branches[0].sampling)
    out = block.branches[0].out((weights @ values.transpose(1, 2)).transpose(1, 2).unflatten(2, (5, 8)))
    torch.testing.assert_close(block(x), out + x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_half_precision(sampling, dtype):
    block = randomise(NonLocal(16, key_channels=8, sampling=SAMPLINGS[sampling]()))
    x = torch.randn(1, 16, 12, 9, dtype=torch.float64)
    literal = reference.attending_block(block, x)
    with torch.autocast("cpu", dtype):
        half = block.float()(x.float())
    assert (half - literal).abs().max() <= 0.05 * literal.abs().max()


def test_training_updates_and_reaches_every_parameter():
    block = AFNB(10, (6,), AverageSampling((1, 3)), key_channels=4).train()
    nn.init.normal_(block.branches[0].out.weight)
    block(torch.randn(2, 10, 6, 5), torch.randn(2, 6, 6, 5)).square().sum().backward()
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for n, p in block.named_parameters() if "conv.bias" not in n
    )


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="normalisation"):
        NonLocal(4, normalisation="max")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="output"):
        NonLocal(4, output="sum")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="embedding"):
        NonLocal(4, embedding="linear")  # type: ignore[arg-type]


# --- stored outputs -----------------------------------------------------------------------------------------------

MMSEG = {"bias": False, "fuse_bias": False}


@pytest.mark.shared
def test_apnb_of_mmsegmentation(shared):
    stored = Stored(shared / "golden/b_mmseg_apnb.safetensors")
    block = APNB(24, AverageSampling((1, 3, 6, 8)), key_channels=8, **MMSEG)
    table = mmseg_attention("stages.0", "branches.0", True) | conv_norm("bottleneck", "fuse", ".conv", ".bn")
    assert_matches(stored, load_mapped(block, stored.state, table), "x")


@pytest.mark.shared
def test_afnb_of_mmsegmentation(shared):
    stored = Stored(shared / "golden/b_mmseg_afnb.safetensors")
    block = AFNB(28, (20,), AverageSampling((1, 3, 6, 8)), out_channels=16, key_channels=8, **MMSEG)
    table = mmseg_attention("stages.0", "branches.0", False) | conv_norm("bottleneck", "fuse", ".conv", ".bn")
    assert_matches(stored, _Swapped(load_mapped(block, stored.state, table)), "low", "high")


@pytest.mark.shared
def test_apnb_of_the_official_code(shared):
    stored = Stored(shared / "golden/d_official_apnb.safetensors")
    block = APNB(24, AverageSampling((1, 3, 6, 8)), key_channels=8, value_channels=12)
    table = ann_attention("stages.0", "branches.0", True) | conv_norm("conv_bn_dropout", "fuse", ".0", ".1.0")
    assert_matches(stored, load_mapped(block, stored.state, table), "x")


@pytest.mark.shared
def test_afnb_of_the_official_code(shared):
    stored = Stored(shared / "golden/d_official_afnb.safetensors")
    block = AFNB(28, (20,), AverageSampling((1, 3, 6, 8)), out_channels=16, key_channels=8, value_channels=12)
    table = ann_attention("stages.0", "branches.0", False) | conv_norm("conv_bn_dropout", "fuse", ".0", ".1")
    assert_matches(stored, _Swapped(load_mapped(block, stored.state, table)), "low", "high")


class _Swapped(nn.Module):
    """A call with (low, high), the order in which the inputs are stored."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, low, high):
        return self.block(high, low)
