"""Blocks export with dynamic height and width, and the exported graph gives the same numbers at other sizes, also in ONNX."""

from __future__ import annotations

import pytest
import torch
from test_non_local import randomise
from torch import nn

from nonlocalseg.blocks.aggregation import PSP
from nonlocalseg.blocks.distribution import LDv2
from nonlocalseg.blocks.non_local import APNB, FusionNonLocal, NonLocal
from nonlocalseg.blocks.sampling import AverageSampling

SIZES = [(65, 129), (5, 7), (8, 33)]  # the second is smaller than its bins


class OnItself(nn.Module):
    """A fusion block whose low map is its high map, so that one input is enough."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x):
        return self.block(x, x)


def blocks() -> dict[str, nn.Module]:
    pyramid = AverageSampling((1, 3, 6, 8))
    return {
        "apnb": APNB(6, pyramid, key_channels=4),
        "apnb, paper": APNB(40, pyramid, key_channels=30, embedding="conv", share=False, output="cat"),
        "afnb": OnItself(FusionNonLocal(6, (6,), key_channels=4, sampling=pyramid)),
        "nonlocal": NonLocal(6, key_channels=4),
        "psp": PSP(6, 4, 4),
        "ldv2": LDv2(6, 0, 4, 4, 4, 3, 2),
    }


def exported(block: nn.Module, channels: int) -> torch.export.ExportedProgram:
    height, width = (torch.export.Dim(name, min=2, max=1024) for name in ("height", "width"))
    x = torch.randn(1, channels, 20, 24)
    return torch.export.export(
        block, (x,), dynamic_shapes=({2: height, 3: width},), prefer_deferred_runtime_asserts_over_guards=True
    )


@pytest.mark.parametrize("name", blocks())
def test_dynamic_sizes(name):
    block = randomise(blocks()[name]).float()
    channels = 40 if "paper" in name else 6
    with torch.no_grad():
        program = exported(block, channels).module()
        for size in SIZES:
            x = torch.randn(1, channels, *size)
            torch.testing.assert_close(program(x), block(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["apnb", "afnb", "psp"])
def test_onnx(name, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    block = randomise(blocks()[name]).float()
    with torch.no_grad():
        torch.onnx.export(exported(block, 6), dynamo=True, verbose=False).save(tmp_path / "block.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "block.onnx"))
    for size in SIZES:
        x = torch.randn(1, 6, *size)
        got = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(got), block(x), rtol=1e-4, atol=1e-5)
