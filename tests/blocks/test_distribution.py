"""LDv1 and LDv2 against their equations and stored outputs."""

from __future__ import annotations

import pytest
import torch
from golden_files import Stored, assert_matches, load_mapped
from torch import nn

from nonlocalseg.blocks import reference
from nonlocalseg.blocks.aggregation import CGNL, HalfResolution
from nonlocalseg.blocks.distribution import LDv1, LDv2
from nonlocalseg.conversion.key_maps import modules


@pytest.mark.parametrize("downsample", ["depthwise", "bilinear", "average"])
@pytest.mark.parametrize("size", [(1, 1), (7, 20), (33, 41)])
def test_ldv1_is_its_equation_at_any_size(downsample, size):
    block = LDv1(6, downsample).double().eval()
    x = torch.randn(2, 6, *size, dtype=torch.float64)
    mask = block.mask(x)
    assert mask.shape == x.shape
    assert ((mask > 0) & (mask < 1)).all()
    torch.testing.assert_close(block(x), reference.ldv1(block, x))


@pytest.mark.parametrize("downsample", ["depthwise", "bilinear", "average"])
def test_ldv1_trains_at_batch_one(downsample):
    block = LDv1(6, downsample).train()
    x = torch.randn(1, 6, 5, 5, requires_grad=True)
    block(x).square().sum().backward()
    assert torch.isfinite(x.grad).all()
    assert all(p.grad is not None for p in block.parameters())


def test_mask_covers_the_open_interval_in_ours_and_its_upper_half_in_the_official_form():
    torch.manual_seed(0)
    x = 3 * torch.randn(1, 8, 33, 41)
    assert LDv1(8).train().mask(x).min() < 0.4
    official = LDv1(8, official=True, align_corners=True).train()
    assert official.mask(x).min() >= 0.5
    with pytest.raises(ValueError, match="at least 15x15"):
        official.mask(torch.randn(1, 8, 14, 20))


def test_ldv1_of_the_paper_has_one_residual_and_the_public_block_two():
    x = torch.randn(1, 4, 9, 9)
    one, two = LDv1(4).eval(), LDv1(4, residuals=2).eval()
    two.load_state_dict(one.state_dict())
    torch.testing.assert_close(two(x) - one(x), x)


@pytest.mark.parametrize(("kernel_size", "dilation"), [(3, 1), (3, 3), (5, 3), (5, 6), (7, 6)])
@pytest.mark.parametrize("inputs", [("both", "both"), ("both", "global"), ("global", "both")])
def test_ldv2_is_its_equation(kernel_size, dilation, inputs):
    torch.manual_seed(0)
    block = LDv2(6, 4, 5, 3, 7, kernel_size, dilation, *inputs).double().eval()
    x_g, x_l = (torch.randn(2, c, 9, 11, dtype=torch.float64, requires_grad=True) for c in (6, 4))
    ours, literal = block(x_g, x_l), reference.ldv2(block, x_g, x_l)
    torch.testing.assert_close(ours, literal)
    parameters = [x_g, x_l, *block.parameters()]
    weight = torch.randn_like(literal)
    got = torch.autograd.grad((ours * weight).sum(), parameters, allow_unused=True)
    expected = torch.autograd.grad((literal * weight).sum(), parameters, allow_unused=True)
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-9)


def test_unfolded_reference_is_the_loop():
    query, key, value = (torch.randn(1, c, 4, 5, dtype=torch.float64) for c in (3, 3, 2))
    loops = reference.local_attention(query, key, value, 3, 2, 0.5)
    torch.testing.assert_close(reference.local_attention_unfold(query, key, value, 3, 2, 0.5), loops)


def test_ldv2_alone_needs_no_local_feature():
    block = LDv2(6, 0, 5, 3, 7, 3, 2).eval()
    assert block(torch.randn(1, 6, 4, 4)).shape == (1, 5, 4, 4)


def test_ldv2_weights_are_those_used():
    block = LDv2(6, 4, 7, 3, 7, 3, 2).double().eval()
    x_g, x_l = torch.randn(1, 6, 5, 6, dtype=torch.float64), torch.randn(1, 4, 5, 6, dtype=torch.float64)
    weights = block.attention(x_g, x_l)
    assert weights.shape == (1, 9, 5, 6)
    torch.testing.assert_close(weights.sum(1), torch.ones(1, 5, 6, dtype=torch.float64))
    value = block.value(torch.cat([x_l, x_g], 1))
    unfolded = nn.functional.unfold(value, 3, 2, 2).view(1, 7, 9, 5, 6)
    torch.testing.assert_close(block(x_g, x_l), block.out((weights[:, None] * unfolded).sum(2)))


def test_parameters_of_ldv2_over_its_aggregation():
    """Table IV: +2.3 M, with X_l's projection from stage 5."""
    added = sum(p.numel() for p in LDv2().parameters()) + 2048 * 512 + 2 * 512
    assert abs(added - 2.3e6) < 0.1e6


@pytest.mark.parametrize(
    "options", [{"kernel_size": 4}, {"dilation": 0}, {"query_input": "local"}, {"key_input": "none"}]
)
def test_mistakes_are_named(options):
    with pytest.raises(ValueError, match=r"kernel_size|dilation|query_input|key_input"):
        LDv2(**options)
    with pytest.raises(ValueError, match="mask_downsample"):
        LDv1(4, "nearest")  # type: ignore[arg-type]


# --- stored outputs -----------------------------------------------------------------------------------------------

DCONVS = {f"dconv{n + 1}": f"down.{n}" for n in range(3)}


@pytest.mark.shared
@pytest.mark.parametrize("size", ["15x15", "33x41"])
def test_official_local_attention(shared, size):
    stored = Stored(shared / f"golden/e_gald_localatten_{size}.safetensors")
    block = LDv1(8, official=True, align_corners=True)
    assert_matches(stored, load_mapped(block, stored.state, modules(DCONVS, ".0", ".1")), "x")


@pytest.mark.shared
def test_official_gald_block(shared):
    stored = Stored(shared / "golden/e_gald_galdblock_33x41.safetensors")
    aggregate = HalfResolution(CGNL(16, 8, official=True), 16, padding=0, bias=True, align_corners=True)
    block = nn.Sequential(aggregate, LDv1(16, official=True, residuals=2, align_corners=True))
    table = {
        **modules({"down": "0.down"}, ".0", ".1"),
        **{f"long_relation.{name}": f"0.block.{name}" for name in ("t", "p", "g", "z")},
        "long_relation.gn": "0.block.norm",
        **modules({f"local_attention.{k}": f"1.{v}" for k, v in DCONVS.items()}, ".0", ".1"),
    }
    # float32 sampling coordinates of align_corners put the stored output 1.7e-5 from the exact value
    assert_matches(stored, load_mapped(block, stored.state, table), "x", tolerance=2e-5)
