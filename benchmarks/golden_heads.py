"""Stored outputs of mmsegmentation's heads at narrow widths, for tests without mmsegmentation: tests/golden/heads.

    python -m benchmarks.golden_heads [NAME ...] [--dgc FOLDER]

One file for every head and set of options of `COMPARED`: "sd." its state dict, "in." its inputs, "out" its scores and
"out." further outputs, "w" and "grad_w." the gradients of (out * w).sum(); which model with which options it is stands
in the file's metadata. Computed in float64 from weights and inputs that float32 holds. FOLDER is a copy of
github.com/lxtGH/GALD-DGCNet, whose DualGCNHead goes to tests/golden/dgc.safetensors.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from benchmarks.compared_heads import COMPARED, FURTHER, NARROW, draw, their_head

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "golden" / "heads"
CLASSES, LARGEST = 3, 120_000


def store(name: str, number: int) -> Path:
    """Write the file of one set of options."""
    case = COMPARED[name]
    theirs, ours = case.small[number]
    head = their_head(name, theirs, NARROW, CLASSES, False)
    tensors = {f"sd.{key}": value.clone() for key, value in head.state_dict().items()}
    torch.manual_seed(2)
    sizes = case.sizes(case.smallest).items()
    inputs = {f"stage{stage}": torch.randn(2, NARROW[stage], *size).relu_() for stage, size in sizes}
    leaves = {key: value.double().requires_grad_() for key, value in inputs.items()}
    found = head.double()(list(leaves.values()))
    outputs = list(found) if isinstance(found, tuple) else [found]
    weight = torch.randn(outputs[0].shape)
    given = [x for x in leaves.values()]
    gradients = torch.autograd.grad((outputs[0] * weight).sum(), given, allow_unused=True)
    tensors |= {f"in.{key}": value for key, value in inputs.items()}
    tensors |= {"w": weight, "out": outputs[0].detach().float()}
    names = FURTHER.get(name, ())
    tensors |= {f"out.{key}": x.detach().float() for key, x in zip(names, outputs[1:], strict=True)}
    tensors |= {f"grad_w.{key}": g.float() for key, g in zip(inputs, gradients, strict=True) if g is not None}
    meta = {"model": name, "theirs": case.theirs, "options": json.dumps(ours), "their_options": json.dumps(theirs)}
    meta |= {"stages": json.dumps({stage: NARROW[stage] for stage in case.stages}), "classes": str(CLASSES)}
    path = FOLDER / f"{name}_{number + 1}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in tensors.items()}, path, meta)
    if path.stat().st_size > LARGEST:
        raise SystemExit(f"error: {path.name} has {path.stat().st_size} bytes, more than {LARGEST}: make it narrower")
    return path


def store_dgc(folder: str) -> Path:
    """Write the file of the official DGCNet's head, with a classifier as narrow as the rest, which its code fixes at 512."""
    sys.path.insert(0, folder)
    from libs.models.DualGCNNet import DualGCNHead  # pyright: ignore[reportMissingImports]  # it stands in FOLDER

    torch.manual_seed(0)
    head = DualGCNHead(8, 8, CLASSES)
    head.bottleneck[3] = torch.nn.Conv2d(8, CLASSES, 1)
    draw(head.eval())
    tensors = {f"sd.{key}": value.clone() for key, value in head.state_dict().items()}
    stage = torch.randn(2, 8, 13, 21).relu_()
    leaf = stage.double().requires_grad_()
    out = head.double()(leaf)
    weight = torch.randn(out.shape)
    (gradient,) = torch.autograd.grad((out * weight).sum(), leaf)
    tensors |= {"in.stage5": stage, "w": weight, "out": out.detach().float(), "grad_w.stage5": gradient.float()}
    path = FOLDER.parent / "dgc.safetensors"
    save_file({key: value.contiguous() for key, value in tensors.items()}, path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of models; by default all")
    parser.add_argument("--dgc", metavar="FOLDER", help="the official DGCNet's code: write its file alone")
    options = parser.parse_args()
    if options.dgc:
        print(store_dgc(options.dgc).name)
        return
    for name in options.names or COMPARED:
        for number in range(len(COMPARED[name].small)):
            path = store(name, number)
            print(f"{path.name}  {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
