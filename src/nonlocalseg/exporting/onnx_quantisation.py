"""INT8 files of ONNX, by onnxruntime's static quantisation; and the parts of a network that an ONNX file tells of."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from nonlocalseg.extras import needing
from nonlocalseg.runtime import cpu_has_vnni
from nonlocalseg.silence import unlogged

MOST_PARTS = 24
"""Modules are taken together until there are no more parts than that: each is measured."""
WEIGHED = {"Conv", "ConvTranspose", "MatMul", "Gemm"}
JOINED = {"Add", "Clip", "Relu"}
"""Operations that a convolution is run together with: between the two nothing is rounded then."""
_SCOPES = "pkg.torch.onnx.name_scopes"


class ONNXQuantiser:
    """Writes the ONNX file `source` in INT8: activations in 8 bits, weights by channel. Without VNNI the sum of two
    products does not always fit where it is kept, unless weights are in 7 bits, which are coarser."""

    def __init__(self, source: Path, images: Sequence[Tensor]) -> None:
        self.source, self.images, self.parts = source, images, parts_of(source)

    @property
    def ways(self) -> tuple[str, ...]:
        return ("8 bits",) if cpu_has_vnni() else ("8 bits", "7 bits")

    def write(self, path: Path, way: str, kept: Collection[str]) -> None:
        from onnxruntime.quantization import QuantType, quantize_static

        with unlogged():
            quantize_static(
                self.source,
                path,
                _reader(self.images),
                op_types_to_quantize=sorted(WEIGHED | JOINED),
                per_channel=True,
                reduce_range=way == "7 bits",
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=sorted(kept),
                calibration_cache_path=self.source.with_suffix(".ranges"),
            )


def need_static_quantisation() -> None:
    """ValueError where onnxruntime's quantisation is not installed."""
    with needing("int8", "INT8 in ONNX files"):
        importlib.import_module("onnxruntime.quantization")


def _reader(images: Sequence[Tensor]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.given = iter(images)

        def get_next(self) -> dict[str, Any] | None:  # type: ignore[override]  # its own annotation says dict alone
            image = next(self.given, None)
            return None if image is None else {"images": image.numpy()}

    return Reader()


def parts_of(source: Path) -> dict[str, list[str]]:
    """The nodes of each part of a network, by the names that they have in an ONNX file: a part is a module with weights,
    and holds smaller ones where there would be more than `MOST_PARTS`."""
    import onnx

    modules, weighed = {}, set()
    for node in onnx.load(source, load_external_data=False).graph.node:
        scopes = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "[]")
        named = [scope for scope in ast.literal_eval(scopes)[:-1] if scope]  # the last is the operation
        if named:
            modules[node.name] = named[-1].removeprefix("network.").split(".")
            weighed |= {node.name} if node.op_type in WEIGHED else set()
    depth = max((len(modules[node]) for node in weighed), default=1)
    while depth > 1 and len({tuple(modules[node][:depth]) for node in weighed}) > MOST_PARTS:
        depth -= 1
    parts: dict[str, list[str]] = {".".join(modules[node][:depth]): [] for node in weighed}
    for node, module in modules.items():
        if (name := ".".join(module[:depth])) in parts:
            parts[name].append(node)
    return parts
