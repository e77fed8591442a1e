"""INT8 files of OpenVINO, by NNCF's quantisation after training."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from torch import Tensor

from nonlocalseg.exporting.onnx_quantisation import parts_of
from nonlocalseg.exporting.openvino_file import openvino_core
from nonlocalseg.extras import needing
from nonlocalseg.runtime import cpu_has_vnni
from nonlocalseg.silence import unlogged

FIX = {
    "8 bits": "DISABLE",
    "7 bits in the first layer, 8 in the others": "FIRST_LAYER",
    "7 bits": "ENABLE",
}
"""NNCF's overflow fix: without VNNI the sum of two products of 8 bits does not fit where it is kept. What is cut off
there is rare behind the first layer, and 7 bits are coarser."""


class OpenVINOQuantiser:
    """Writes the ONNX file `source` as an .xml and .bin in INT8."""

    def __init__(self, source: Path, images: Sequence[Tensor]) -> None:
        self.source, self.images, self.parts = source, images, parts_of(source)

    @property
    def ways(self) -> tuple[str, ...]:
        whole, *fixed = FIX
        return (whole,) if cpu_has_vnni() else tuple(fixed)

    def write(self, path: Path, way: str, kept: Collection[str]) -> None:
        import_nncf()
        import nncf
        import openvino
        from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix

        # A convolution with a bias is NAME/WithoutBiases here.
        patterns = [f"^{re.escape(node)}(/.*)?$" for node in kept]
        with unlogged(), contextlib.redirect_stdout(io.StringIO()):  # its bars
            quantised = nncf.quantize(
                openvino_core().read_model(self.source),
                nncf.Dataset(self.images, lambda image: image.numpy()),
                subset_size=len(self.images),
                ignored_scope=nncf.IgnoredScope(patterns=patterns, validate=False),
                advanced_parameters=AdvancedQuantizationParameters(overflow_fix=OverflowFix[FIX[way]]),
            )
        openvino.save_model(quantised, path, compress_to_fp16=False)


def import_nncf() -> None:
    """NNCF, which reports its use over the network, without being asked, where it finds the package for that."""
    reporting = "openvino_telemetry"
    with needing("int8", "INT8 in OpenVINO files"):
        if sys.modules.get("nncf") is None:
            held = sys.modules.get(reporting)
            sys.modules |= {reporting: None}  # as if it were not installed
            try:
                with unlogged():
                    importlib.import_module("nncf")
            finally:
                sys.modules.pop(reporting)
                if held is not None:
                    sys.modules[reporting] = held
