"""How time and memory grow with the number of positions: NB, APNB and LDv2, printed equations against ours.

    python -m benchmarks.growth [--out docs/growth.png] [--json FILE] [--sizes 32x32 64x64 ...] [--device cuda]

Blocks as in our ANN and GALDv2 heads: 512 channels, keys of 256; APNB in the default wiring, and in the paper's form. A
form whose matrices would not fit into memory ends where they last do.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from nonlocalseg import drawing
from nonlocalseg.blocks import reference
from nonlocalseg.blocks.distribution import LDv2
from nonlocalseg.blocks.non_local import APNB, NonLocal
from nonlocalseg.blocks.sampling import AverageSampling
from nonlocalseg.runtime import pick_device
from nonlocalseg.timing.blocks import PAPER, fill, literal_context, matrices_bytes
from nonlocalseg.timing.measuring import Case, compare, free_memory, surroundings
from nonlocalseg.timing.tables import COMPARISON, Row, Table, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZES = ("32x32", "64x32", "64x64", "96x64", "96x96", "128x128", "256x128", "256x192", "256x256")
CHANNELS, KEYS = 512, 256
HEADLINE = "APNB, ours (default wiring)"
LITERAL_NB, LITERAL_LOCAL = "NB, literal", "LDv2, unfolded"


def forms(size: tuple[int, int], device: torch.device, channels: int, keys: int) -> list[Case]:
    """Every form at one size, those that fit; contexts alone, as in ANN's Table 1."""
    x = torch.randn(1, channels, *size, device=device)
    nb = fill(NonLocal(channels, key_channels=keys, **PAPER)).to(device)
    default = fill(APNB(channels, AverageSampling(), key_channels=keys)).to(device)
    bare = fill(APNB(channels, AverageSampling(), key_channels=keys, **PAPER)).to(device)
    local = fill(LDv2(channels, channels, channels, keys, channels)).to(device)
    runs: dict[str, Callable[[], Tensor]] = {
        LITERAL_NB: lambda: literal_context(nb, x),
        "NB, ours": lambda: nb.context(x, x),
        "APNB, literal (default wiring)": lambda: literal_context(default, x),
        HEADLINE: lambda: default.context(x, x),
        "APNB, ours (paper's form)": lambda: bare.context(x, x),
        LITERAL_LOCAL: lambda: reference.ldv2(local, x, x),
        "LDv2, ours": lambda: local(x, x),
    }
    positions = math.prod(size)
    needed = {
        LITERAL_NB: matrices_bytes(x),
        LITERAL_LOCAL: 3 * 4 * positions * channels * local.kernel_size**2,
    }
    free = free_memory(device)
    return [Case(name, run) for name, run in runs.items() if needed.get(name, 0) < 0.8 * free]


def measure(
    sizes: list[tuple[int, int]], device: torch.device, repeat: int, channels: int = CHANNELS, keys: int = KEYS
) -> Table:
    rows: list[Row] = []
    for size in sizes:
        for row in compare(forms(size, device, channels, keys), device, repeat):
            rows.append({"size": f"{size[0]}x{size[1]}", "positions": math.prod(size), **row})
    headings = {
        "name": "",
        "size": "size",
        **{k: v for k, v in COMPARISON.items() if k not in ("name", "ratio", "error")},
    }
    title = f"Cost of one block over the number of positions, {channels} channels, keys of {keys}"
    return Table(title, headings, rows, surroundings(device))


def picture(table: Table) -> Figure:
    """Time and extra memory over the number of positions, both logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5.5), layout="constrained")
    panels = figure.subplots(1, 2)
    names = list(dict.fromkeys(row["name"] for row in table.rows))
    colours = [colour for i, colour in enumerate(drawing.OKABE_ITO) if i != 3]  # yellow is too pale for a line
    for panel, column, factor, label in (
        (panels[0], "seconds", 1e3, "time (ms)"),
        (panels[1], "extra_memory", 1e-6, "memory beyond input and result (MB)"),
    ):
        for i, name in enumerate(names):
            rows = [row for row in table.rows if row["name"] == name and row[column] is not None]
            style = {"linestyle": ("-", "--", "-.", ":")[i % 4], "marker": "osD^vPX"[i % 7]}
            panel.plot(
                [row["positions"] for row in rows],
                [max(factor * row[column], 1e-3) for row in rows],
                label=name,
                color=np.array(colours[i % 7]) / 255,
                linewidth=2.8 if name == HEADLINE else 1.5,
                **style,
            )
        panel.set(xscale="log", yscale="log", xlabel="positions N", ylabel=label)
        panel.grid(alpha=0.3)
    panels[0].legend(fontsize=9)
    figure.suptitle(headline(table) + f"\n{table.surroundings['device']}")
    return figure


def headline(table: Table) -> str:
    """What the default wiring gains over the literal NB at the largest size where both were measured."""
    of = {name: {row["size"]: row for row in table.rows if row["name"] == name} for name in (LITERAL_NB, HEADLINE)}
    size = [size for size in of[HEADLINE] if size in of[LITERAL_NB]][-1]
    slow, fast = of[LITERAL_NB][size], of[HEADLINE][size]
    return f"At {size} positions our APNB (default wiring) is {slow['seconds'] / fast['seconds']:.0f}x faster than literal NB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="docs/growth.png", metavar="FILE")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--sizes", nargs="+", default=SIZES, metavar="HxW", help="of the feature map")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--device", help="by default a GPU where there is one")
    options = parser.parse_args()
    sizes = [tuple(int(side) for side in size.split("x")) for size in options.sizes]
    table = measure([(height, width) for height, width in sizes], pick_device(options.device), options.repeat)
    console = Console(highlight=False, width=120)
    console.print(table.shown())
    console.print(headline(table))
    console.print(f"picture in {drawing.save(picture(table), options.out)}")
    if options.json:
        write_json(options.json, [table])


if __name__ == "__main__":
    main()
