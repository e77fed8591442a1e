"""Every head exports with free height and width, and says which of its options have no effect."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from test_models import small

import nonlocalseg as nls
from nonlocalseg.heads.ann import ANNOptions
from nonlocalseg.heads.base import HeadOptions
from nonlocalseg.heads.fcn import NonLocalOptions
from nonlocalseg.heads.gald import GALDOptions
from nonlocalseg.models.catalog import MODELS


class OnStages(torch.nn.Module):
    """A head called with its stages as separate inputs, lowest first."""

    def __init__(self, head: torch.nn.Module, stages: tuple[int, ...]) -> None:
        super().__init__()
        self.head, self.stages = head, sorted(stages)

    def forward(self, *maps):
        return self.head(dict(zip(self.stages, maps, strict=True)))


@pytest.mark.parametrize("name", MODELS)
def test_heads_export_with_free_sizes(name):
    model = small(name).eval()
    head = OnStages(model.head, model.head.stages)
    channels = [model.backbone.channels[stage] for stage in head.stages]

    def maps(height, width):
        return tuple(torch.randn(1, count, height, width) for count in channels)

    # A map of half the size would be a single position, a constant in export.
    least = 3 if name in ("psanet", "galdv2") else 2
    height, width = (torch.export.Dim(side, min=least, max=512) for side in ("height", "width"))
    with torch.no_grad():
        program = torch.export.export(
            head,
            maps(20, 24),
            dynamic_shapes=(tuple({2: height, 3: width} for _ in channels),),
            prefer_deferred_runtime_asserts_over_guards=True,
        ).module()
        for size in ((17, 33), (9, 12)):
            given = maps(*size)
            torch.testing.assert_close(program(*given), head(*given), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_scores_have_the_size_of_a_stage(name):
    """Of stage 5, or of the lower one that a decoder goes back to."""
    sides = {2: (24, 32), 3: (12, 16), 4: (6, 8), 5: (6, 8)}
    head = small(name).eval().head
    channels = {2: 32, 3: 48, 4: 192, 5: 96}
    with torch.no_grad():
        scores = head({stage: torch.randn(1, channels[stage], *side) for stage, side in sides.items()})
    assert scores.shape[2:] == sides[2 if name in ("deeplabv3plus", "upernet") else 5]


@pytest.mark.parametrize("name", MODELS)
def test_an_option_that_is_not_idle_changes_the_head(name):
    """Structure, buffers or what forward does: the modules as printed, or the scores."""
    start = MODELS[name].options
    if name == "nonlocal":
        start = dataclasses.replace(start, output="residual")  # context_norm goes with it
    for field in dataclasses.fields(start):
        if field.name in start.idle() or field.name == "align_corners":  # which the Segmenter reads as well
            continue
        other = different(start, field.name)
        if other is None or field.name in other.idle():
            continue
        first, second = (described(name, options) for options in (start, other))
        assert first != second, field.name


def described(name: str, options: HeadOptions) -> str:
    torch.manual_seed(0)
    head = MODELS[name].head.build(options, {2: 8, 3: 8, 4: 16, 5: 32}, 3)
    plain = {key: value for module in head.modules() for key, value in vars(module).items() if not key.startswith("_")}
    return f"{head} {sorted((key, str(value)) for key, value in plain.items())} {head.stages} {states(head)}"


def states(head: torch.nn.Module) -> list[tuple]:
    return [
        (str(type(m).__name__), *sorted((k, str(v)) for k, v in vars(m).items() if k[0] != "_")) for m in head.modules()
    ]


OTHERS = {
    "fuse": (3, 4),
    "anchor_sizes": (2, 4),
    "psp_bins": (1, 2),
    "aspp_rates": (2, 4, 6),
    "sampling": "pyramid_max",
    "normalisation": "rescale",
    "embedding": "conv",
    "output": "cat",
    "aggregate": "psp",
    "distribute": "ldv2",
    "arrangement": "ldga",
    "aggregate_stride": 1,
    "mask_downsample": "average",
    "distribute_kernel_size": 3,
    "distribute_query": "global",
    "distribute_key": "global",
    "lateral": (3, 4),
    "psa_type": "collect",
    "mask_size": (5, 7),
    "down_factor": (4, 2),
    "pooling_type": "avg",
    "fusion_types": ("channel_mul",),
    "aspp_kernel_size": 3,
    "lateral_stages": (3, 4),
    "pool_scales": (1, 2),
    "filter_sizes": (1, 2),
    "dense_rates": (1, 2),
    "coordinate_stride": 4,
}


def different(start: HeadOptions, name: str) -> HeadOptions | None:
    """The options with another value of one field, where that can be built."""
    now = getattr(start, name)
    if name in OTHERS:
        other = OTHERS[name] if OTHERS[name] != now else {"aggregate_stride": 2, "aggregate": "aspp"}.get(name)
    elif isinstance(now, bool):
        other = not now
    else:
        other = now * 2 if isinstance(now, int) else now / 2 + 0.01
    try:
        return None if other is None else dataclasses.replace(start, **{name: other})
    except ValueError:
        return None


def test_idle_options_are_refused():
    for name, options in (
        ("gald", {"aggregate": "psp", "distribute": "none", "key_channels": 4}),
        ("gald", {"distribute": "ldv1", "distribute_dilation": 3}),
        ("fcn", {"auxiliary": False, "auxiliary_channels": 4}),
        ("ann", {"output": "cat", "fuse_bias": False}),
        ("ann", {"wiring": "paper", "channels": 4}),
    ):
        with pytest.raises(ValueError, match=r"has no effect on model .* as it is set up: leave it out"):
            nls.create_model(name, "test_resnet.r160_in1k", num_classes=2, **options)


def test_idle_names_exist():
    for options in (ANNOptions(between=False), NonLocalOptions(between=False), GALDOptions(aggregate="none")):
        assert options.idle() <= {field.name for field in dataclasses.fields(options)}
