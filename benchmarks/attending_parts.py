"""The parts that attend, of the heads that both have, without the convolutions before and behind them, which are equal.

In a whole head a 3x3 convolution over 2048 channels hides what its attention costs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.compared_heads import CHANNELS, COMPARED, both
from nonlocalseg.blocks.basic import ConvNormAct
from nonlocalseg.blocks.folding import fold_norm
from nonlocalseg.blocks.objects import represent
from nonlocalseg.timing.measuring import Case, compare
from nonlocalseg.timing.tables import Row

Part = Callable[[Any], Callable[..., Any]]


class _Interlaced(nn.Module):
    """Their ISAHead between its convolutions, which it has written out in one method."""

    class First(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, : x.shape[1] // 2]

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.head = copy.deepcopy(head)
        self.head.in_conv, self.head.conv_seg, self.head.dropout = nn.Identity(), nn.Identity(), None
        self.head.out_conv = self.First()

    def forward(self, x: Tensor) -> Tensor:
        return self.head([x])


PARTS: dict[str, tuple[Part, Part]] = {
    "danet": (lambda head: lambda x: head.cam(head.pam(x)), lambda head: lambda x: head.channel(head.position(x))),
    "dnl": (lambda head: head.dnl_block, lambda head: head.context),
    "ccnet": (lambda head: lambda x: head.cca(head.cca(x)), lambda head: lambda x: head.context(head.context(x))),
    "gcnet": (lambda head: head.gc_block, lambda head: head.context),
    "emanet": (lambda head: head.ema_module, lambda head: head.attention),
    "isa": (_Interlaced, lambda head: head.attention),
    "encnet": (lambda head: lambda x: head.enc_module(x)[1], lambda head: lambda x: head.encoding(x)[0]),
    "ocr": (
        lambda head: lambda x, scores: head[1].object_context_block(x, head[1].spatial_gather_module(x, scores)),
        lambda head: lambda x, scores: head.join.over(head.attention(x, represent(x, scores)), x),
    ),
}
"""Of their head and of ours: from a map of 512 channels, and for ocr the coarse scores, to such a map. PSANet's operator is
compiled there, and what stands for it here would be timed."""
NOTES = ("memory: beyond weights, maps given and returned; folded: batch norms in their convolutions",)


def part_row(name: str, size: tuple[int, int], device: torch.device, repeat: int) -> Row:
    """Both with the published widths on the same map, in inference."""
    theirs, ours = (head.to(device) for head in both(name, COMPARED[name].published, CHANNELS, 19))
    folded = copy.deepcopy(ours)
    with torch.no_grad():
        for module in folded.modules():
            if isinstance(module, ConvNormAct):
                fold_norm(module)
    torch.manual_seed(2)
    given = [torch.randn(1, 512, *size, device=device).relu_()]
    if name == "ocr":
        given.append(torch.randn(1, 19, *size, device=device))
    runs = [
        part(head) for part, head in zip((PARTS[name][0], *2 * PARTS[name][1:]), (theirs, ours, folded), strict=True)
    ]
    cases = [
        Case("theirs", lambda: runs[0](*given)),
        Case("ours", lambda: runs[1](*given), "theirs"),
        Case("folded", lambda: runs[2](*given), "theirs"),
    ]
    first, plain, last = compare(cases, device, repeat)
    return {
        "name": name,
        "their_seconds": first["seconds"],
        "seconds": plain["seconds"],
        "ratio": plain["ratio"],
        "folded_ratio": last["ratio"],
        "their_memory": first["extra_memory"],
        "memory": plain["extra_memory"],
        "their_multiply_adds": first["multiply_adds"],
        "multiply_adds": plain["multiply_adds"],
        "full_error": max(plain["error"], last["error"]),
    }
