"""Local attention against its literal equation, and its two operators against each other's gradients."""

from __future__ import annotations

import ctypes
import importlib.util
import io
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from nonlocalseg.blocks.neighbours import (
    local_aggregate,
    local_attention,
    local_attention_apply,
    local_attention_weights,
    local_scores,
)

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # the same tests on the CUDA kernels, without a GPU
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"
HAS_TRITON = importlib.util.find_spec("triton") is not None
# (height, width, kernel_size, dilation): odd sizes, maps smaller than the reach, maps of several tiles.
WINDOWS = [(1, 1, 5, 6), (3, 5, 7, 6), (9, 7, 5, 2), (7, 4, 1, 1), (9, 13, 3, 1), (7, 13, 5, 6), (45, 3, 5, 1)]
WINDOWS = WINDOWS[:3] if INTERPRETED else WINDOWS  # the interpreter is slow


def features(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def inputs(height: int, width: int, dtype: torch.dtype = torch.float32, batch: int = 2) -> list[Tensor]:
    """query, key [B, 70, H, W] and value [B, 67, H, W]: channels that fill a block of the kernels and a bit."""
    shapes = [(batch, channels, height, width) for channels in (70, 70, 67)]
    return [features(*shape, dtype=dtype, seed=n) * 0.3 for n, shape in enumerate(shapes)]


def results_and_gradients(function, tensors: list[Tensor], gradient: Tensor, *options) -> list[Tensor]:
    leaves = [tensor.clone(memory_format=torch.preserve_format).requires_grad_() for tensor in tensors]
    result = function(*leaves, *options)
    return [result.detach(), *torch.autograd.grad(result, leaves, gradient.to(result.dtype))]


def assert_equal_to_unfold(tensors: list[Tensor], kernel_size: int, dilation: int, tolerance: float) -> None:
    """Result and gradients against the unfold form of the same numbers in float64, relative to the largest."""
    gradient = features(*tensors[2].shape, seed=9).to(tensors[2].dtype)
    options = kernel_size, dilation, 0.7
    ours = results_and_gradients(local_attention, tensors, gradient, *options)
    doubles = [tensor.double().contiguous() for tensor in tensors]
    literal = results_and_gradients(local_attention_unfold, doubles, gradient, *options)
    for mine, theirs, like in zip(ours, literal, [tensors[2], *tensors], strict=True):
        assert mine.dtype == like.dtype
        assert mine.shape == like.shape
        assert (mine - theirs).abs().max() <= tolerance * max(theirs.abs().max(), 1e-3)


def literal_local_attention(
    query: Tensor, key: Tensor, value: Tensor, kernel_size: int, dilation: int, scale: float = 1.0
) -> tuple[Tensor, Tensor]:
    """GALD Eq. 6-8 position by position in float64: (result [B, D, H, W], weights [B, k k, H, W])."""
    query, key, value = query.double(), key.double(), value.double()
    batch, _, height, width = query.shape
    result = torch.zeros_like(value)
    weights = query.new_zeros(batch, kernel_size**2, height, width)
    steps = [dilation * (step - kernel_size // 2) for step in range(kernel_size)]
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                neighbours = [(y + down, x + right) for down in steps for right in steps]
                inside = [0 <= row < height and 0 <= column < width for row, column in neighbours]
                logits = [
                    scale * torch.dot(query[b, :, y, x], key[b, :, row, column]).item() if within else 0.0
                    for (row, column), within in zip(neighbours, inside, strict=True)
                ]
                exponentials = [math.exp(logit - max(logits)) for logit in logits]
                for n, (row, column) in enumerate(neighbours):
                    weights[b, n, y, x] = exponentials[n] / sum(exponentials)
                    if inside[n]:
                        result[b, :, y, x] += weights[b, n, y, x] * value[b, :, row, column]
    return result, weights


def local_attention_unfold(
    query: Tensor, key: Tensor, value: Tensor, kernel_size: int, dilation: int, scale: float = 1.0
) -> Tensor:
    """The same through unfold, which copies key and value k k times; differentiable by autograd."""
    batch, _, height, width = query.shape
    reach = dilation * (kernel_size // 2)
    shape = (batch, -1, kernel_size**2, height, width)
    keys = F.unfold(key, kernel_size, dilation, reach).view(shape)
    values = F.unfold(value, kernel_size, dilation, reach).view(shape)
    weights = (scale * (query.unsqueeze(2) * keys).sum(1, keepdim=True)).softmax(2)
    return (weights * values).sum(2)


@pytest.mark.parametrize(("height", "width", "kernel_size", "dilation"), WINDOWS[:6])
def test_unfold_form_is_the_equation(height: int, width: int, kernel_size: int, dilation: int) -> None:
    query, key, value = inputs(height, width, torch.float64, batch=1)
    literal, _ = literal_local_attention(query, key, value, kernel_size, dilation, 0.7)
    torch.testing.assert_close(local_attention_unfold(query, key, value, kernel_size, dilation, 0.7), literal)


@pytest.mark.parametrize(("height", "width", "kernel_size", "dilation"), WINDOWS)
def test_forward_and_gradients(height: int, width: int, kernel_size: int, dilation: int) -> None:
    assert_equal_to_unfold(inputs(height, width), kernel_size, dilation, 2e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 3e-3), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize(("height", "width", "kernel_size", "dilation"), [(5, 6, 5, 2), (5, 9, 7, 1)])
def test_half_precision(
    height: int, width: int, kernel_size: int, dilation: int, dtype: torch.dtype, tolerance: float
) -> None:
    tensors = inputs(height, width, dtype, batch=1)
    assert_equal_to_unfold(tensors, kernel_size, dilation, tolerance)
    weights = local_attention_weights(*tensors[:2], kernel_size, dilation)
    assert weights.dtype == torch.float32  # the softmax's sum is exact where half precision's is not
    torch.testing.assert_close(weights.sum(1), torch.ones_like(weights[:, 0]), rtol=0, atol=1e-6)


def test_same_bits_every_time_and_in_either_memory_format() -> None:
    tensors = inputs(5, 4)
    gradient = torch.ones_like(tensors[2])
    first = results_and_gradients(local_attention, tensors, gradient, 5, 2)
    again = results_and_gradients(local_attention, tensors, gradient, 5, 2)
    last = [tensor.contiguous(memory_format=torch.channels_last) for tensor in tensors]
    channels_last = results_and_gradients(local_attention, last, gradient, 5, 2)
    assert first[0].is_contiguous()
    assert channels_last[0].is_contiguous(memory_format=torch.channels_last)
    for one, two, three in zip(first, again, channels_last, strict=True):
        assert torch.equal(one, two)
        assert torch.equal(one, three)


@pytest.mark.skipif(INTERPRETED or not HAS_TRITON, reason="starts the interpreter itself, or has none")
def test_cuda_kernels_under_the_interpreter() -> None:
    chosen = "forward_and_gradients or half_precision or same_bits"
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(Path(__file__)), "-k", chosen]
    done = subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "8 passed" in done.stdout, done.stdout


@pytest.mark.skipif(INTERPRETED or not HAS_TRITON, reason="the interpreter compiles nothing")
@pytest.mark.parametrize(("operator", "dtype"), [("scores", torch.bfloat16), ("aggregate", torch.float32)])
def test_cuda_kernels_compile_without_a_gpu(operator: str, dtype: torch.dtype) -> None:
    import triton
    from triton.backends.compiler import GPUTarget

    from nonlocalseg.blocks import neighbours_triton as kernels

    kernel, small = {
        "scores": (kernels.scores_kernel, {}),
        "aggregate": (kernels.aggregate_kernel, {"TRANSPOSED": True}),
    }[operator]
    constants = {**kernels.tile_constants(5, 6, 256, dtype), **small}
    options = {name: constants.pop(name) for name in ("num_warps", "enable_fp_fusion")}
    number = {torch.bfloat16: "*bf16", torch.float32: "*fp32"}[dtype]
    types = {"scores": "*fp32", "weights": "*fp32", "height": "i32", "width": "i32", "channels": "i32"}
    types |= dict.fromkeys(constants, "constexpr")
    signature = {name: types.get(name, number) for name in kernel.arg_names}
    aligned = {
        (kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in signature if name not in constants
    }
    source = triton.compiler.ASTSource(kernel, signature, constants, aligned)
    assembly = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["ptx"]
    assert ("mma" in assembly) == (dtype == torch.bfloat16)
    assert "tf32" not in assembly
    assert not re.search(r"\b(atom|red)\.", assembly)  # sums in no fixed order


def test_gradients_of_both_operators_to_second_order() -> None:
    query, key, value = [features(1, 2, 3, 4, dtype=torch.float64, seed=n).requires_grad_() for n in range(3)]
    weights = features(1, 3, 4, 9, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(local_scores, (query, key, 3, 2))
    assert torch.autograd.gradgradcheck(local_scores, (query, key, 3, 2))
    for transposed in (False, True):
        assert torch.autograd.gradcheck(local_aggregate, (weights, value, 3, 2, transposed))
        assert torch.autograd.gradgradcheck(local_aggregate, (weights, value, 3, 2, transposed))
    assert torch.autograd.gradcheck(local_attention, (query, key, value, 3, 1, 0.7))


def test_aggregate_transposed_is_the_adjoint() -> None:
    weights, value = features(2, 7, 9, 25, dtype=torch.float64), features(2, 3, 7, 9, dtype=torch.float64)
    other = features(2, 3, 7, 9, dtype=torch.float64, seed=1)
    there = (local_aggregate(weights, value, 5, 2, False) * other).sum()
    back = (local_aggregate(weights, other, 5, 2, True) * value).sum()
    torch.testing.assert_close(there, back)


def test_weights_are_those_of_the_equation_and_of_forward() -> None:
    query, key, value = inputs(6, 5, torch.float64, batch=1)
    weights = local_attention_weights(query, key, 5, 2, 0.7)
    _, literal = literal_local_attention(query, key, value, 5, 2, 0.7)
    torch.testing.assert_close(weights, literal)
    applied = local_attention_apply(weights, value, 5, 2)
    assert torch.equal(applied, local_attention(query, key, value, 5, 2, 0.7))


def test_neighbours_outside_the_map_take_part() -> None:
    one = torch.ones(1, 1, 1, 1, device=DEVICE)
    weights = local_attention_weights(one, one, 3, 1).flatten()
    expected = [1 / (8 + math.e)] * 9
    expected[4] *= math.e
    torch.testing.assert_close(weights, torch.tensor(expected, device=DEVICE))
    torch.testing.assert_close(local_attention(one, one, one, 3, 1).item(), expected[4])


def test_autocast_does_not_reach_the_products() -> None:
    tensors = inputs(6, 7)
    expected = local_attention(*tensors, 3, 2)
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        assert torch.equal(local_attention(*tensors, 3, 2), expected)


class Attending(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.project = torch.nn.Conv2d(4, 11, 1)

    def forward(self, image: Tensor) -> Tensor:
        query, key, value = self.project(image).split((3, 3, 5), dim=1)
        return local_attention(query, key, value, 3, 2, 0.5)


def test_compiles_without_a_graph_break_forward_and_backward() -> None:
    module = Attending().to(DEVICE)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager", dynamic=True)
    for size in ((7, 9), (6, 5)):
        image = features(2, 4, *size)
        expected = torch.autograd.grad(module(image).square().sum(), module.project.weight)[0]
        result = torch.autograd.grad(compiled(image).square().sum(), module.project.weight)[0]
        torch.testing.assert_close(result, expected)
    torch.compile(module, fullgraph=True, backend="eager")(features(1, 4, 7, 9))


@pytest.mark.parametrize("operator", ["scores", "aggregate", "transposed"])
def test_operators_are_sound_for_the_framework(operator: str) -> None:
    query, key, value = [tensor.requires_grad_() for tensor in inputs(4, 5)]
    if operator == "scores":
        torch.library.opcheck(local_scores, (query, key.contiguous(memory_format=torch.channels_last), 3, 2))
    else:
        weights = features(2, 4, 5, 9).requires_grad_()
        torch.library.opcheck(local_aggregate, (weights, value, 3, 2, operator == "transposed"))


def test_exports_as_plain_operators_of_any_size() -> None:
    module = Attending().to(DEVICE).eval()
    free = {"image": {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}}
    exported = torch.export.export(module, (features(1, 4, 8, 11),), dynamic_shapes=free)
    assert "nonlocalseg" not in str(exported.graph)
    for size in ((8, 11), (3, 5), (17, 6)):
        image = features(1, 4, *size)
        torch.testing.assert_close(exported.module()(image), module(image))


def test_exports_to_onnx_of_any_size() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    module = Attending().eval()
    free = {"image": {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}}
    image = torch.randn(1, 4, 8, 11)
    program = torch.onnx.export(
        module, (image,), dynamo=True, dynamic_shapes=free, input_names=["image"], verbose=False
    )
    assert program is not None
    stored = io.BytesIO()
    program.save(stored)
    session = onnxruntime.InferenceSession(stored.getvalue())
    for size in ((8, 11), (3, 5)):
        image = torch.randn(1, 4, *size)
        result = torch.from_numpy(session.run(None, {"image": image.numpy()})[0])
        torch.testing.assert_close(result, module(image).detach(), rtol=1e-4, atol=1e-5)


def peak_bytes(function, *arguments) -> int:
    """Most memory that the process gained while the function ran forward and backward, measured by the kernel."""
    leaves = [argument.requires_grad_() for argument in arguments]
    ctypes.CDLL(None).malloc_trim(0)  # gives back what earlier tests freed, which would hide as much of ours
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from here
    before = _status_bytes("VmRSS")
    result = function(*leaves, 5, 6)
    torch.autograd.grad(result, leaves, torch.ones_like(result))
    return _status_bytes("VmHWM") - before


def _status_bytes(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists() or DEVICE != "cpu", reason="reads Linux's own measure")
def test_peak_memory_is_a_fraction_of_unfold() -> None:
    shape = (1, 64, 96, 96)
    peak_bytes(local_attention, *(features(1, 64, 8, 8) for _ in range(3)))  # what libraries allocate once
    ours = peak_bytes(local_attention, *(features(*shape) for _ in range(3)))
    unfold = peak_bytes(local_attention_unfold, *(features(*shape) for _ in range(3)))
    assert ours < unfold / 4


def test_counts_its_operations() -> None:
    with FlopCounterMode(display=False) as counter:
        local_attention(*inputs(6, 7), 5, 2)
    assert counter.get_total_flops() == 2 * 25 * 2 * 6 * 7 * (70 + 67)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel_size": 4}, "kernel_size=4 has no centre"),
        ({"dilation": 0}, "dilation=0 must be at least 1"),
        ({"key": torch.zeros(1, 3, 4, 4)}, r"query \(1, 2, 4, 4\) and key \(1, 3, 4, 4\)"),
        ({"key": torch.zeros(1, 2, 4, 4, dtype=torch.float64)}, "convert one to the dtype of the other"),
        ({"value": torch.zeros(1, 2, 5, 4)}, r"they must be \(1, 9, 5, 4\)"),
    ],
)
def test_mistakes_are_named(change: dict[str, object], message: str) -> None:
    right = dict.fromkeys(("query", "key", "value"), torch.zeros(1, 2, 4, 4)) | {"kernel_size": 3, "dilation": 1}
    local_attention(**right)
    with pytest.raises(ValueError, match=message):
        local_attention(**(right | change))


@pytest.mark.gpu
def test_speed_on_a_gpu() -> None:
    """At least 5 times faster than unfold, forward and backward, at the size of the papers' training crop."""
    tensors = [features(2, 256, 97, 97, seed=n).contiguous(memory_format=torch.channels_last) for n in range(3)]
    gradient = torch.ones_like(tensors[0])
    seconds = {}
    for function in (local_attention, local_attention_unfold):
        for _ in range(3):
            results_and_gradients(function, tensors, gradient, 5, 6)
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(10):
            results_and_gradients(function, tensors, gradient, 5, 6)
        stop.record()
        torch.cuda.synchronize()
        seconds[function.__name__] = start.elapsed_time(stop)
    assert seconds["local_attention"] * 5 <= seconds["local_attention_unfold"]
