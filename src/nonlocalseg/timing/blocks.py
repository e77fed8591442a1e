"""Blocks on their own: NB and APNB in the form of ANN's Table 1 and Fig. 2, and LDv2's core (GALD, Eq. 6-8)."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

from nonlocalseg.blocks import reference
from nonlocalseg.blocks.attention import Attention
from nonlocalseg.blocks.neighbours import local_attention as attend_locally
from nonlocalseg.blocks.non_local import APNB, NonLocal
from nonlocalseg.blocks.sampling import AverageSampling, Sampling
from nonlocalseg.blocks.tiles import Maxima, Sums, Tile
from nonlocalseg.timing.measuring import Case, compare, free_memory, surroundings, synchronise
from nonlocalseg.timing.published import table_1
from nonlocalseg.timing.tables import COMPARISON, Row, Table

Drawn = TypeVar("Drawn", bound=nn.Module)
PAPER: dict[str, Any] = {"embedding": "conv", "share": False, "scaled": False, "output": "cat"}
"""Eq. 1-11 as they stand: bare 1x1 convolutions, no scale, no convolution behind the concatenation."""
NB, OUR_NB, LITERAL, OURS = "NB, literal", "NB, ours", "APNB, literal", "APNB, ours"


def block(
    size: tuple[int, int], device: torch.device, repeat: int = 5, channels: int = 2048, key_channels: int = 256
) -> Table:
    """ANN's Table 1 at one size of the feature map: literal equations and ours, the published figures beside.

    Measured is the context W_o O without the final concatenation, as in the paper, then the default wiring in the same
    way and as a whole block. The literal NB is left out where its N x N matrices do not fit into memory.
    """
    x = torch.randn(1, channels, *size, device=device)
    nb, apnb = paper_pair(channels, key_channels, device)
    default = fill(APNB(channels, AverageSampling(), key_channels=key_channels)).to(device)
    needed = matrices_bytes(x)
    full = needed < 0.8 * free_memory(device)
    notes = [
        "Context alone, paper's form (bare convolutions); default: BN + ReLU keys; whole: with its output convolution.",
        "Extra memory: beyond input and result. Error: relative to the literal form. Published: Titan Xp.",
    ]
    cases = [
        Case(OUR_NB, lambda: nb.context(x, x), NB if full else None),
        Case(LITERAL, lambda: literal_context(apnb, x)),
        Case(OURS, lambda: apnb.context(x, x), LITERAL),
        Case("default APNB, literal", lambda: literal_context(default, x)),
        Case("default APNB, ours", lambda: default.context(x, x), "default APNB, literal"),
        Case("whole default block, literal", lambda: reference.attending_block(default, x)),
        Case("whole default block, ours", lambda: default(x), "whole default block, literal"),
    ]
    if full:
        cases.insert(0, Case(NB, lambda: literal_context(nb, x)))
    else:
        notes.append(f"The literal NB is left out: its matrices need {needed / 1e9:.0f} GB.")
    rows = compare(cases, device, repeat, NB if full else None)
    return Table(
        f"Non-local blocks on {size[0]}x{size[1]} positions, C = {channels}, embeddings of {key_channels}",
        {**COMPARISON, "overall_ratio": "faster than NB"},
        rows + table_1(size),
        surroundings(device),
        tuple(notes),
    )


def matrices_bytes(x: Tensor) -> int:
    """What the literal NB holds at once for `[1, C, H, W]`: the N x N similarities and their softmax."""
    return 2 * x.element_size() * (x.shape[2] * x.shape[3]) ** 2


def paper_pair(channels: int, key_channels: int, device: torch.device) -> tuple[NonLocal, NonLocal]:
    """NB and APNB of the paper's form with the same drawn weights."""
    nb = fill(NonLocal(channels, key_channels=key_channels, **PAPER))
    apnb = fill(APNB(channels, AverageSampling(), key_channels=key_channels, **PAPER))
    apnb.load_state_dict(nb.state_dict())
    return nb.to(device), apnb.to(device)


def fill(module: Drawn) -> Drawn:
    """Weights and batch-norm statistics as training might leave them, none of them zero; in evaluation mode."""
    generator = torch.Generator().manual_seed(0)

    def draw(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, device="cpu").to(like)

    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.Conv2d):
                part.weight.copy_(draw(part.weight) * (part.weight[0].numel() ** -0.5))
                if part.bias is not None:
                    part.bias.copy_(draw(part.bias) * 0.1)
            elif isinstance(part, nn.BatchNorm2d) and part.running_mean is not None and part.running_var is not None:
                part.running_mean.copy_(draw(part.running_mean) * 0.1)
                part.running_var.copy_(0.75 + draw(part.running_var).abs_() * 0.5)
                part.bias.copy_(draw(part.bias) * 0.1)
    return module.eval()


def literal_context(block: NonLocal, x: Tensor) -> Tensor:
    """Eq. 1-4 or 8-10 in the order they are printed."""
    attention = block.branches[0]
    assert isinstance(attention, Attention)
    return reference.attention_context(attention, x, x)


KINDS: dict[str, tuple[str, ...]] = {
    "convolution": ("conv",),
    "matrix product": ("mm", "addmm", "bmm", "baddbmm"),
    "attention": ("attention",),
    "softmax": ("softmax",),
    "batch norm": ("batch_norm",),
    "pooling": ("pool", "mean"),
    "copies": ("copy_", "cat", "clone", "fill_", "zero_"),
}
"""Kind of operation -> parts of the names of the framework's operators; all others are "other"."""


def operations(
    size: tuple[int, int], device: torch.device, repeat: int = 5, channels: int = 2048, key_channels: int = 256
) -> Table:
    """ANN's Fig. 2: where the time of a block goes, as the framework's profiler sees it; the last row is the sum."""
    x = torch.randn(1, channels, *size, device=device)
    nb, apnb = paper_pair(channels, key_channels, device)
    default = fill(APNB(channels, AverageSampling(), key_channels=key_channels)).to(device)
    forms: dict[str, Callable[[], Tensor]] = {
        NB: lambda: literal_context(nb, x),
        OUR_NB: lambda: nb.context(x, x),
        LITERAL: lambda: literal_context(apnb, x),
        OURS: lambda: apnb.context(x, x),
        "default APNB, ours": lambda: default.context(x, x),
    }
    with torch.no_grad(), _sampling_marked(apnb), _sampling_marked(default):
        spent = {name: _by_kind(run, device, repeat) for name, run in forms.items()}
    rows: list[Row] = [
        {"name": kind} | {f"{name} seconds": spent[name].get(kind, 0.0) for name in forms} for kind in (*KINDS, "other")
    ]
    rows.append({"name": "sum"} | {f"{name} seconds": sum(spent[name].values()) for name in forms})
    return Table(
        f"Time per operation of a block on {size[0]}x{size[1]} positions, C = {channels}, embeddings of {key_channels}",
        {"name": ""} | {f"{name} seconds": name for name in forms},
        [row for row in rows if sum(value for key, value in row.items() if key != "name") > 0],
        surroundings(device),
        ("ANN Fig. 2 shows these kinds as bars. Ours pools by matrix products: they count as pooling.",),
    )


def _by_kind(run: Callable[[], Tensor], device: torch.device, repeat: int) -> dict[str, float]:
    """Median seconds of each kind of operation over `repeat` runs, after one that is not counted."""
    run()
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    runs: list[dict[str, float]] = []
    for _ in range(repeat):
        with profile(activities=activities) as profiler:
            run()
            synchronise(device)
        spent: dict[str, float] = {}
        for event in profiler.events() or []:
            if event.device_type == DeviceType.CPU and event.name.startswith(("aten::", "nonlocalseg::")):
                microseconds = event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
                kind = _kind(event)
                spent[kind] = spent.get(kind, 0.0) + microseconds / 1e6
        runs.append(spent)
    return {kind: statistics.median(spent.get(kind, 0.0) for spent in runs) for kind in set().union(*runs)}


def _kind(event: FunctionEvent) -> str:
    """The kind of an operator: pooling below a sampling's mark, else the kind of the nearest caller that has one."""
    names = []
    caller: FunctionEvent | None = event
    while caller is not None:
        if caller.name == _MARK:
            return "pooling"
        names.append(caller.name.rpartition("::")[2])
        caller = caller.cpu_parent
    for name in names:
        for kind, parts in KINDS.items():
            if name in parts or (kind != "matrix product" and any(part in name for part in parts)):
                return kind
    return "other"


_MARK = "pyramid sampling"


@contextmanager
def _sampling_marked(block: nn.Module) -> Iterator[None]:
    """Inside, the profiler sees the calls of the block's sampling under one name."""
    parts = [part for part in block.modules() if isinstance(part, Sampling)]
    for part in parts:
        object.__setattr__(part, "gather", _marked(part.gather))
    try:
        yield
    finally:
        for part in parts:
            object.__delattr__(part, "gather")


def _marked(gather: Callable[..., Sums | Maxima]) -> Callable[..., Sums | Maxima]:
    def call(*maps: Tensor, tile: Tile | None = None) -> Sums | Maxima:
        with record_function(_MARK):
            return gather(*maps, tile=tile)

    return call


def local_attention(
    size: tuple[int, int],
    device: torch.device,
    repeat: int = 5,
    batch: int = 2,
    channels: int = 256,
    kernel_size: int = 5,
    dilation: int = 6,
) -> Table:
    """LDv2's core against its unfolded form: forward, and forward and backward; on CUDA also against the bytes moved."""
    shape = (batch, channels, *size)
    tensors = [torch.randn(shape, device=device).mul_(0.3).requires_grad_() for _ in range(3)]
    gradient = torch.randn(shape, device=device)
    query, key, value = tensors

    def both_ways(function: Callable[..., Tensor]) -> list[Tensor]:
        result = function(query, key, value, kernel_size, dilation)
        return [result.detach(), *torch.autograd.grad(result, tensors, gradient)]

    unfold = reference.local_attention_unfold
    cases = [
        Case("forward, unfold", lambda: unfold(query, key, value, kernel_size, dilation)),
        Case("forward, ours", lambda: attend_locally(query, key, value, kernel_size, dilation), "forward, unfold"),
        Case("forward + backward, unfold", lambda: both_ways(unfold), gradients=True),
        Case(
            "forward + backward, ours", lambda: both_ways(attend_locally), "forward + backward, unfold", gradients=True
        ),
    ]
    if device.type == "cuda":
        places = [torch.empty(shape, device=device) for _ in range(2)]
        # A copy reads and writes: two read and write as many bytes as reading q, k, v and writing the result.
        cases.append(
            Case("forward, bytes moved", lambda: [p.copy_(t) for p, t in zip(places, tensors, strict=False)], None)
        )
    rows = compare(cases, device, repeat)
    notes = ["Memory: extra beyond inputs, results and gradients; with them beside it."]
    if device.type == "cuda":
        seconds = {row["name"]: row["seconds"] for row in rows}
        notes.append(f"ours takes {seconds['forward, ours'] / seconds['forward, bytes moved']:.1f}x the bytes' time.")
    return Table(
        f"Local attention, [{batch}, {channels}, {size[0]}, {size[1]}], k = {kernel_size}, r = {dilation}",
        COMPARISON,
        rows,
        surroundings(device),
        tuple(notes),
    )
