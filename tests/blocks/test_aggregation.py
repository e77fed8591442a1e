"""PSP, ASPP and CGNL against stored outputs, explicit loops and the published formula."""

from __future__ import annotations

import pytest
import torch
from golden_files import Stored, assert_matches, load_mapped
from torch import nn

from nonlocalseg.blocks import reference
from nonlocalseg.blocks.aggregation import ASPP, CGNL, PSP, HalfResolution
from nonlocalseg.conversion.key_maps import conv_norm, modules

SIZES = [(9, 7), (3, 5), (1, 1)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("block", [PSP(6, 8, 4), ASPP(6, 8, 4), CGNL(16), HalfResolution(CGNL(16), 16)])
def test_any_size_trains_at_batch_one(block, size):
    channels = 16 if block.out_channels == 16 else 6
    x = torch.randn(1, channels, *size, requires_grad=True)
    out = block.train()(x)
    assert out.shape == (1, block.out_channels, *size)
    out.square().sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_psp_is_pooling_then_convolution():
    block = PSP(6, 8, 4, bins=(1, 3)).double().eval()
    x = torch.randn(2, 6, 7, 5, dtype=torch.float64)
    pooled = [
        nn.functional.interpolate(stage(nn.functional.adaptive_avg_pool2d(x, size)), size=(7, 5), mode="bilinear")
        for stage, size in zip(block.stages, (1, 3), strict=True)
    ]
    torch.testing.assert_close(block(x), block.bottleneck(torch.cat([x, *pooled], dim=1)))


@pytest.mark.parametrize("options", [{}, {"official": True}, {"official": True, "official_scale": True}, {"groups": 1}])
def test_cgnl_is_its_loops(options):
    torch.manual_seed(0)
    block = CGNL(16, 8, **options).double().eval()
    x = torch.randn(2, 16, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(block(x), reference.cgnl(block, x), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("training", [True, False])
def test_the_aggregates_magnitude_matters_in_ours_only(training):
    """Doubling p doubles the aggregate: ours follows, the official form divides it out again and keeps the sign alone."""
    torch.manual_seed(0)
    x = torch.randn(1, 16, 8, 8, dtype=torch.float64)
    for official in (False, True):
        block = CGNL(16, 8, official=official).double().train(training)
        before = block(x) - x
        block.p.weight.data *= 2
        after = block(x) - x
        block.p.weight.data *= -1
        flipped = block(x) - x
        if official:
            # GroupNorm's eps keeps the equality from being exact.
            assert (after - before).abs().max() <= 0.02 * before.abs().max()
        else:
            torch.testing.assert_close(after, 2 * before)
        torch.testing.assert_close(flipped, -after)


def test_cgnl_keeps_the_aggregate_in_float32_under_autocast():
    torch.manual_seed(0)
    block, x = CGNL(16, 8).eval(), torch.randn(1, 16, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        aggregate = block.aggregate(x)
    assert aggregate.dtype == torch.float32
    assert (aggregate - block.aggregate(x)).abs().max() <= 0.02 * block.aggregate(x).abs().max()


def test_groups_must_divide():
    with pytest.raises(ValueError, match="groups=8 must divide"):
        CGNL(12)


# --- stored outputs -----------------------------------------------------------------------------------------------


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("d_official_cgnl", {}),
        ("e_gald_spatialcgnl", {}),
        ("e_gald_spatialcgnl_g1", {"groups": 1}),
        ("e_gald_spatialcgnl_scale", {"official_scale": True}),
    ],
)
def test_official_cgnl(shared, name, options):
    stored = Stored(shared / f"golden/{name}.safetensors")
    table = {"t": "t", "p": "p", "g": "g", "z": "z", "gn": "norm"}
    assert_matches(stored, load_mapped(CGNL(32, 16, official=True, **options), stored.state, table), "x")


@pytest.mark.shared
def test_official_psp(shared):
    stored = Stored(shared / "golden/e_gald_pspmodule.safetensors")
    block = PSP(32, 16, 16, act=False, map_first=False, align_corners=True)
    table = modules({f"stages.{n}": f"stages.{n}" for n in range(4)}, ".1", ".2")
    assert_matches(
        stored, load_mapped(block, stored.state, table | conv_norm("bottleneck", "bottleneck", ".0", ".1")), "x"
    )
