"""Every head as a file of every format at every tried size: the error, relative to the model's largest logit.

python -m benchmarks.exports [--models ann psp ...] [--wiring mmseg] [--no-fold]

Narrow heads on a small ResNet, so that a table takes minutes; what goes wrong in a conversion does so at any width.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path

from nonlocalseg.exporting.checking import TOLERANCE, compare, tried_sizes
from nonlocalseg.exporting.form import Form
from nonlocalseg.exporting.formats import FORMATS
from nonlocalseg.exporting.graph import Graph, trace
from nonlocalseg.exporting.onnx_file import write_onnx
from nonlocalseg.exporting.openvino_file import write_from_onnx
from nonlocalseg.exporting.program import write_program
from nonlocalseg.models.catalog import MODELS
from nonlocalseg.models.creation import resolve
from nonlocalseg.models.segmenter import Segmenter
from nonlocalseg.timing.networks import drawn_model

BACKBONE = "test_resnet.r160_in1k"
NARROW = {"channels": 32, "key_channels": 16, "low_channels": 8, "coarse_channels": 16}


def narrow(name: str, wiring: str) -> Segmenter:
    config = resolve(name, BACKBONE, ["a"], None, wiring)
    chosen = {key: side for key, side in NARROW.items() if key in config.flat() and key not in config.options.idle()}
    return drawn_model(name, BACKBONE, wiring=wiring, auxiliary=False, **chosen)


def errors(name: str, wiring: str, form: Form, folder: Path) -> list[str]:
    """A line for each format; the graph is traced once, and OpenVINO's file is made of that for ONNX."""
    model, lines = narrow(name, wiring), []
    reference, program = Graph.of(model, replace(form, fold=False)), trace(Graph.of(model, form))
    files = {kind: folder / f"{name}{found.suffix}" for kind, found in FORMATS.items()}
    writers = {
        "onnx": lambda path: write_onnx(program, path),
        "openvino": lambda path: write_from_onnx(files["onnx"], path, half=False),
        "pt2": lambda path: write_program(program, path),
    }
    for kind, path in files.items():
        try:
            writers[kind](path)
            opened = FORMATS[kind].open(path)
        except Exception as error:
            lines.append(f"{name:16} {kind:9} not written: {' '.join(str(error).split())[:160]}")
            continue
        found = [tried for size in tried_sizes(form) if (tried := compare(opened.run, reference, *size)) is not None]
        good = found and all(tried.error <= TOLERANCE[form.precision] for tried in found)
        lines.append(
            f"{name:16} {kind:9} " + " ".join(f"{one.error:9.1e}" for one in found) + ("" if good else "  WRONG")
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS), metavar="MODEL")
    parser.add_argument("--wiring", default="default")
    parser.add_argument("--fold", action=argparse.BooleanOptionalAction, default=True)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    form = Form(fold=given.fold)
    sides = " ".join(f"{f'{h}x{w}' if batch == 1 else f'{batch} {h}x{w}':>9}" for batch, h, w in tried_sizes(form))
    print(f"{'':16} {'':9} {sides}", flush=True)
    for name in given.models:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            try:
                lines = errors(name, given.wiring, form, Path(folder))
            except ValueError as error:
                lines = [f"{name:16} refused: {error}"]
        print("\n".join(lines), f"  ({time.perf_counter() - start:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
