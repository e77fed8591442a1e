"""Heads and whole networks: what folding, memory format, precision and compilation bring (ANN Table 2, GALD Table IV)."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nonlocalseg.blocks import reference
from nonlocalseg.blocks.basic import to_channels_last
from nonlocalseg.blocks.non_local import AttendingBlock
from nonlocalseg.exporting.loading import load_exported
from nonlocalseg.heads.ann import ANNHead
from nonlocalseg.heads.base import Features
from nonlocalseg.models.cost import parameter_count
from nonlocalseg.models.creation import create_model
from nonlocalseg.models.folding import fold
from nonlocalseg.models.segmenter import Segmenter
from nonlocalseg.models.speed import speed_up
from nonlocalseg.timing.blocks import fill
from nonlocalseg.timing.measuring import Case, compare, surroundings
from nonlocalseg.timing.published import ANN_TABLE_2, GALD_TABLE_4
from nonlocalseg.timing.tables import COMPARISON, Table

CLASSES = 19
WIRINGS = ("default", "mmseg")
SIZE = (512, 1024)  # of the image that whole networks see


def drawn_model(model: str, backbone: str, **options: Any) -> Segmenter:
    """A model in evaluation mode with 19 classes and drawn weights; batch norm keeps the activations of deep networks small."""
    network = create_model(model, backbone, num_classes=CLASSES, **options)
    fill(network.head)
    return network.eval()


def head(
    size: tuple[int, int], device: torch.device, repeat: int = 5, backbone: str = "resnet50c", **options: Any
) -> Table:
    """ANN's head on the stages of `backbone` at one size of the feature map: literal, ours, folded, in two wirings."""
    cases, channels = [], {}
    for wiring in WIRINGS:
        model = drawn_model("ann", backbone, wiring=wiring, auxiliary=False, **options)
        channels = model.backbone.channels
        features = {stage: torch.randn(1, channels[stage], *size, device=device).relu_() for stage in (4, 5)}
        cases += _head_cases(wiring, model.to(device), features)
    widths = f"{channels[4]} and {channels[5]}"
    return Table(
        f"ANN's head on {size[0]}x{size[1]} positions of {widths} channels",
        COMPARISON,
        compare(cases, device, repeat),
        surroundings(device),
        ("Against mmsegmentation's own: python -m benchmarks.mmsegmentation.",),
    )


def _head_cases(wiring: str, model: Segmenter, features: Features) -> list[Case]:
    plain, folded = model.head, fold(model).head
    assert isinstance(plain, ANNHead)
    literal = f"{wiring} wiring, literal"
    return [
        Case(literal, lambda: literal_ann_head(plain, features)),
        Case(f"{wiring} wiring, ours", lambda: plain(features), literal),
        Case(f"{wiring} wiring, folded", lambda: folded(features), literal),
    ]


def literal_ann_head(head: ANNHead, features: Features) -> Tensor:
    """Fig. 3 step by step, both blocks by their literal equations."""
    assert isinstance(head.fusion, AttendingBlock)
    assert isinstance(head.context, AttendingBlock)
    fused = reference.attending_block(head.fusion, features[5], *(features[stage] for stage in head.fuse))
    context = reference.attending_block(head.context, head.between(head.fusion_dropout(fused)))
    return head.classifier(head.dropout(context))


def network(
    size: tuple[int, int],
    device: torch.device,
    repeat: int = 5,
    model: str = "ann",
    backbone: str = "resnet50c",
    compiled: bool | None = None,
    **options: Any,
) -> Table:
    """ANN's Table 2 for one of our models on one image: in every form in which it can be run.

    `--fast` is what `models/speed.py` chooses on this device. compiled: measure the compiled form too, whose first run
    takes minutes; by default where there is a C++ compiler.
    """
    compiled = shutil.which(os.environ.get("CXX", "g++")) is not None if compiled is None else compiled
    plain = drawn_model(model, backbone, auxiliary=False, **options).to(device)
    image = torch.rand(1, 3, *size, device=device)
    cases = _network_cases(plain, image, device, compiled)
    rows = compare(cases, device, repeat)
    forms = {"as it is": plain, "folded": fold(plain)}
    for row in rows:
        form = forms["folded" if "folded" in row["name"] else "as it is"]
        row["parameters"] = parameter_count(form)
    return Table(
        f"{model} on {backbone}, one {size[0]}x{size[1]} image",
        {**COMPARISON, "parameters": "parameters"},
        [*rows, *(ANN_TABLE_2 if model == "ann" else [])],
        surroundings(device),
        (
            "Memory: beyond weights and image. Error: relative to the first row. Published: one 2048x1024 image, all memory.",
            *([] if compiled else ["The compiled form is left out: it needs a C++ compiler."]),
        ),
    )


def exported_file(path: str | Path, size: tuple[int, int] | None, device: torch.device, repeat: int = 5) -> Table:
    """A file that `export` wrote, in its runtime, on one image."""
    model = load_exported(path)
    height, width = size or model.passport.form.static or SIZE
    image = torch.rand(1, 3, height, width)
    rows = compare([Case(model.path.name, lambda: model.answer(image), counted=False)], device, repeat)
    return Table(f"{model.path.name}, one {height}x{width} image", COMPARISON, rows, surroundings(device))


def _network_cases(plain: Segmenter, image: Tensor, device: torch.device, compiled: bool) -> list[Case]:
    last = image.contiguous(memory_format=torch.channels_last)
    plain_last = to_channels_last(copy.deepcopy(plain))
    folded = fold(plain)
    folded_last = to_channels_last(copy.deepcopy(folded))
    first = "eager"

    def case(name: str, network: nn.Module, given: Tensor, counted: bool = True) -> Case:
        return Case(name, lambda: network(given)["out"], None if name == first else first, counted=counted)

    cases = [
        case(first, plain, image),
        case("channels_last", plain_last, last),
        case("folded", folded, image),
        case("folded, channels_last", folded_last, last),
    ]
    if compiled:
        optimised: Callable[..., Any] = torch.compile(folded_last)
        cases.append(Case("folded, channels_last, compiled", lambda: optimised(last)["out"], first, counted=False))
    fast = speed_up(plain, device)
    if compiled or "compiled" not in fast.choices:
        name = "--fast: " + ", ".join(choice.partition(" (")[0] for choice in fast.choices)
        cases.append(case(name, fast, last, counted="compiled" not in fast.choices))
    return cases


# As in the recipes of the table: the rows differ by the modules alone, and aggregation works at half the map's size.
DISTRIBUTIONS = {
    "FCN": ("fcn", {}),
    "ASPP": ("aspp", {"aggregate_stride": 2}),
    "ASPP + LDv1": ("gald", {"aggregate": "aspp", "distribute": "ldv1"}),
    "ASPP + LDv2": ("galdv2", {}),
}
DEEPER = "ASPP, ResNet-101"


def distribution(
    size: tuple[int, int], device: torch.device, repeat: int = 5, backbone: str = "resnet50s", **options: Any
) -> Table:
    """GALD's Table IV: what local distribution adds to a network's time and parameters; ratios are to FCN."""
    image = torch.rand(1, 3, *size, device=device)
    cases, parameters = [], {}
    measured = {name: (backbone, *row) for name, row in DISTRIBUTIONS.items()}
    if backbone.startswith("resnet50"):
        measured[DEEPER] = (backbone.replace("50", "101", 1), *DISTRIBUTIONS["ASPP"])
    for name, (body, model, details) in measured.items():
        network = drawn_model(model, body, auxiliary=False, **details, **options).to(device)
        parameters[name] = parameter_count(network)
        cases.append(Case(name, lambda network=network: network(image)["out"]))
    rows = compare(cases, device, repeat, overall="FCN")
    for row in rows:
        row["parameters"] = parameters[row["name"]]
        if "LD" in row["name"]:
            row["parameters_difference"] = parameters[row["name"]] - parameters["ASPP"]
    return Table(
        f"Local distribution on {backbone}, one {size[0]}x{size[1]} image",
        {
            "name": "",
            "seconds": "time",
            "spread": "spread",
            "overall_ratio": "against FCN",
            "multiply_adds": "multiply-adds",
            "extra_memory": "extra memory",
            "parameters": "parameters",
            "parameters_difference": "over ASPP",
        },
        rows + GALD_TABLE_4,
        surroundings(device),
        (
            "ASPP at half the map's size, as the recipes have it, takes fewer multiply-adds than FCN's 3x3 convolution at "
            "the whole size; with aggregate_stride 1 they rise from row to row as the published times do.",
        ),
    )
