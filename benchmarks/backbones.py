"""timm's families as backbones: one small network of each, tried at 64x64 and 97x65; writes docs/backbones.md.

python -m benchmarks.backbones [--out docs/backbones.md]
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import timm
import torch
from timm.models import model_entrypoint

from nonlocalseg.models.backbone import Backbone
from nonlocalseg.models.config import NetworkOptions

# Parts of names, those of the smallest networks first.
SMALL = (
    "test_ atto femto pico zepto nano xxs _t0 xxt _s0 s0 m0 _b0 _l0 tiny xs _050 _035 18 w18 34 small _s b0 60 50 x0_25"
)
SIZES = ((64, 64), (97, 65))


def smallest(names: list[str]) -> str:
    parts = SMALL.split()
    return min(names, key=lambda name: (next((i for i, part in enumerate(parts) if part in name), 99), len(name), name))


def tried(name: str) -> str:
    """What becomes of a network: strides and the multiple that images are padded to, or why it is refused."""
    try:
        backbone = Backbone(name, NetworkOptions()).eval()
        with torch.no_grad():
            for size in SIZES:
                backbone(backbone.pad(torch.rand(1, 3, *size)))
    except Exception as error:
        return f"no: {str(error).partition(chr(10))[0][:150]}"
    padded = f", padded to a multiple of {backbone.multiple}" if backbone.multiple > 1 else ""
    return f"yes: strides {' '.join(map(str, backbone.strides.values()))}{padded}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/backbones.md"))
    own = parser.parse_args()
    warnings.simplefilter("ignore")
    families: dict[str, list[str]] = {}
    for name in timm.list_models():
        families.setdefault(model_entrypoint(name).__module__.rpartition(".")[2], []).append(name)
    rows = []
    for family, names in sorted(families.items()):
        name = smallest(names)
        rows.append((family, name, tried(name)))
        print(*rows[-1], flush=True)
    works = sum(result.startswith("yes") for _, _, result in rows)
    text = [
        "# Backbones",
        "",
        f"One small network of each family of timm {timm.__version__}, made without weights and run at 64x64 and 97x65",
        f"pixels: {works} of {len(rows)} families work. Written by `python -m benchmarks.backbones`.",
        "",
        "| family | tried | works |",
        "|---|---|---|",
        *(f"| {family} | `{name}` | {result.replace('|', '/')} |" for family, name, result in rows),
    ]
    own.out.write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
