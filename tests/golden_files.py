"""Reading the stored outputs of public implementations: tensors by prefix, and weights that are not stored but drawn by key."""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from nonlocalseg.conversion.key_maps import renamed


class Stored:
    """One stored case: `inputs`, `state` (the original state dict), `outputs` and gradients."""

    def __init__(self, path: Path) -> None:
        self.tensors = load_file(path)
        self.state = self.below("sd.")
        self.inputs = self.below("in.")

    def below(self, prefix: str) -> dict[str, Tensor]:
        return {name[len(prefix) :]: value for name, value in self.tensors.items() if name.startswith(prefix)}

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def __contains__(self, name: str) -> bool:
        return name in self.tensors


def portable_fill(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """Weights for every key, from one frozen random stream per key; tied keys of APNB take the key branch's values."""
    state = {key: _filled(key, shape) for key, shape in shapes.items()}
    for key in state:
        for tied, origin in (
            ("context.stages.0.query_project", "key_project"),
            ("context.2.stages.0.f_query", "f_key"),
        ):
            if tied in key:
                state[key] = state[key.replace(tied.split(".")[-1], origin)]
    return state


def _filled(key: str, shape: list[int]) -> Tensor:
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.long)
    stream = np.random.RandomState(zlib.crc32(key.encode("utf-8")))
    if key.endswith("running_var"):
        values = 0.5 + stream.random_sample(shape)
    elif key.endswith("running_mean"):
        values = 0.1 * stream.standard_normal(shape)
    elif len(shape) == 1 and key.endswith(".weight"):
        values = 0.5 + stream.random_sample(shape)
        values = values * 0.2 if re.search(r"layer\d+\.\d+\.bn3\.weight$", key) else values
    elif len(shape) == 1 and key.endswith(".bias"):
        values = 0.1 * stream.standard_normal(shape)
    else:
        values = stream.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(values)).float()


def listed_keys(path: Path) -> dict[str, list[int]]:
    return json.loads(path.read_text())


def load_mapped(block: nn.Module, state: dict[str, Tensor], table: dict[str, str]) -> nn.Module:
    """Load `state` into `block` under `table` (source path -> our path), strictly both ways; in evaluation mode."""
    mapped, unknown = renamed(state, table)
    assert not unknown
    counters = {key: value for key, value in block.state_dict().items() if key.endswith("num_batches_tracked")}
    block.load_state_dict(counters | mapped)
    return block.eval()


def assert_matches(
    stored: Stored,
    block: nn.Module,
    *names: str,
    tolerance: float = 1e-5,
    output: str = "out",
    parameters: tuple[nn.Module, dict[str, str]] | None = None,
) -> None:
    """Output within `tolerance`, and the gradients of (out * w).sum() within 1e-4 of their largest, for the inputs `names`.

    Our side is computed in float64, so that the verdict does not depend on the order in which a CPU's kernels add; in
    float32 the output is then held to `tolerance` of its largest value, or of 1 where that is less.
    `parameters` is the module and the key table by which stored parameter gradients are compared as well.
    """
    with torch.no_grad():
        rounded = block(*(stored.inputs[name] for name in names))
    assert_within(rounded, stored[output], tolerance * max(1.0, stored[output].abs().max().item()))
    block.double()
    inputs = [stored.inputs[name].double().requires_grad_() for name in names]
    out = block(*inputs)
    assert_within(out, stored[output], tolerance)
    compared = dict(zip((f"grad_w.{name}" for name in names), inputs, strict=True))
    if parameters is not None:
        module, table = parameters
        for key in stored.below("grad_w.sd."):
            (ours,) = renamed({key: stored.state[key]}, table)[0]
            compared[f"grad_w.sd.{key}"] = module.get_parameter(ours)
        assert len(compared) > len(names)
    gradients = torch.autograd.grad((out * stored["w"]).sum(), list(compared.values()))
    for name, gradient in zip(compared, gradients, strict=True):
        assert_within(gradient, stored[name], 1e-4 * stored[name].abs().max().item(), name)


def assert_within(value: Tensor, reference: Tensor, tolerance: float, name: str = "out") -> None:
    """The largest absolute difference is at most `tolerance`."""
    difference = (value - reference).abs().max().item()
    assert difference <= tolerance, f"{name}: {difference:.3g} > {tolerance:.3g}"
