"""ONNX files: written from a traced graph, run by onnxruntime on the CPU."""

from __future__ import annotations

import importlib
import logging
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nonlocalseg.exporting.passport import ENTRY, Opened
from nonlocalseg.extras import needing
from nonlocalseg.silence import quietly

OPSET = 18
_NEED = ("export", "ONNX files")


def write_onnx(program: torch.export.ExportedProgram, path: Path) -> None:
    """Write a graph with the input `images` and the output `answer`."""
    with needing(*_NEED):
        import onnx

        importlib.import_module("onnxscript")  # torch's exporter needs it, and says less where it is missing

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        for name in ("torch.onnx", "onnxscript"):
            logging.getLogger(name).setLevel(logging.ERROR)
        converted = torch.onnx.export(
            program, dynamo=True, verbose=False, opset_version=OPSET, input_names=["images"], output_names=["answer"]
        )
    assert converted is not None
    proto = converted.model_proto
    _name_sides(proto)
    onnx.save(proto, path)


def seal_onnx(path: Path, text: str) -> None:
    """Put the passport in."""
    import onnx

    proto = onnx.load(path)
    onnx.helper.set_model_props(proto, {ENTRY: text})
    onnx.save(proto, path)


def open_onnx(path: Path) -> Opened:
    """The file in onnxruntime, with as many threads as torch has."""
    with needing(*_NEED):
        import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # what is fatal: it raises its errors as well
    try:
        with quietly():  # what it logs before there is a session
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions have no common class but this
        raise ValueError(
            f"{path}: onnxruntime cannot read it ({str(error).splitlines()[0]}): export it again"
        ) from None

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])

    return Opened(run, session.get_modelmeta().custom_metadata_map.get(ENTRY))


def _name_sides(proto: Any) -> None:
    """Calls the free sides batch, height and width wherever the graph speaks of them."""
    (given,) = proto.graph.input
    names = dict(zip((side.dim_param for side in given.type.tensor_type.shape.dim), _SIDES, strict=True))
    names.pop("", None)
    if not names:
        return
    known = re.compile(r"\b(" + "|".join(map(re.escape, names)) + r")\b")
    for described in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        for side in described.type.tensor_type.shape.dim:
            if side.dim_param:
                side.dim_param = known.sub(lambda found: names[found[0]], side.dim_param)


_SIDES = ("batch", "channels", "height", "width")
