"""The compared heads in mmsegmentation and here, with the same weights: what golden files and tables are made from.

`COMPARED` says for every model which head of mmsegmentation it is, with the options of its published checkpoints and,
small, with the options that tests need.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.compared_pyramids import PYRAMIDS
from benchmarks.literal_operators import without_operators
from benchmarks.mmsegmentation import import_mmsegmentation
from nonlocalseg.blocks.basic import ConvNormAct
from nonlocalseg.blocks.folding import fold_norm
from nonlocalseg.conversion import key_maps
from nonlocalseg.conversion.mmseg_rules import RULES
from nonlocalseg.heads.base import Head, Watch
from nonlocalseg.models.catalog import MODELS
from nonlocalseg.models.creation import resolve
from nonlocalseg.timing.measuring import Case, compare
from nonlocalseg.timing.tables import Row

Options = Mapping[str, Any]
CHANNELS = {2: 256, 3: 512, 4: 1024, 5: 2048}
NARROW = {2: 4, 3: 4, 4: 6, 5: 8}


@dataclass(frozen=True)
class Compared:
    """theirs: name of their head. published: (their options, ours beyond the wiring) of the checkpoints. small: the same,
    of narrow heads for tests. stages: those it is given, low to high, each `larger` times the size of the last."""

    theirs: str
    published: tuple[Options, Options]
    small: tuple[tuple[Options, Options], ...]
    stages: tuple[int, ...] = (5,)
    larger: tuple[int, ...] = ()
    smallest: tuple[int, int] = (9, 13)

    def sizes(self, last: tuple[int, int]) -> dict[int, tuple[int, int]]:
        """Height and width of each stage, where the last has those."""
        factors = self.larger or (1,) * len(self.stages)
        return {stage: (n * last[0], n * last[1]) for stage, n in zip(self.stages, factors, strict=True)}


def _same(**options: Any) -> tuple[Options, Options]:
    """Options that have one name in both."""
    return options, options


COMPARED: dict[str, Compared] = {
    **{name: Compared(**fields) for name, fields in PYRAMIDS.items()},
    "encnet": Compared(
        "EncHead",
        ({"channels": 512, "num_codes": 32}, {}),
        (
            _same(channels=8, num_codes=4),
            ({"channels": 8, "num_codes": 3, "add_lateral": True}, {"channels": 8, "num_codes": 3, "lateral": (3, 4)}),
        ),
        (3, 4, 5),
    ),
    "gcnet": Compared(
        "GCHead",
        ({"channels": 512}, {}),
        (
            _same(channels=8),
            _same(channels=8, ratio=0.5, pooling_type="avg", fusion_types=("channel_mul", "channel_add")),
        ),
    ),
    "danet": Compared(
        "DAHead",
        ({"channels": 512, "pam_channels": 64}, {}),
        (({"channels": 8, "pam_channels": 4}, {"channels": 8, "key_channels": 4}),),
    ),
    "dnl": Compared(
        "DNLHead",
        ({"channels": 512}, {}),
        (
            ({"channels": 8}, {"channels": 8, "key_channels": 4}),
            (
                {"channels": 8, "mode": "dot_product"},
                {"channels": 8, "key_channels": 4, "normalisation": "rescale"},
            ),
            (
                {"channels": 8, "reduction": 1, "use_scale": False, "temperature": 0.5},
                {"channels": 8, "key_channels": 8, "scaled": False, "temperature": 0.5},
            ),
        ),
    ),
    "ccnet": Compared("CCHead", ({"channels": 512}, {}), (_same(channels=16), _same(channels=16, recurrence=1))),
    "isa": Compared(
        "ISAHead",
        ({"channels": 512, "isa_channels": 256}, {}),
        (
            (
                {"channels": 8, "isa_channels": 4, "down_factor": (4, 2)},
                {"channels": 8, "key_channels": 4, "down_factor": (4, 2)},
            ),
        ),
    ),
    "emanet": Compared(
        "EMAHead",
        ({"channels": 256, "ema_channels": 512, "num_bases": 64, "num_stages": 3}, {}),
        (
            _same(channels=8, ema_channels=8, num_bases=4, num_stages=3),
            (
                {"channels": 8, "ema_channels": 8, "num_bases": 4, "num_stages": 2, "concat_input": False},
                {"channels": 8, "ema_channels": 8, "num_bases": 4, "num_stages": 2, "combine": False},
            ),
        ),
    ),
    "psanet": Compared(
        "PSAHead",
        ({"channels": 512, "mask_size": (97, 97)}, {}),
        (
            _same(channels=8, mask_size=(7, 5)),
            _same(channels=8, mask_size=(25, 25), normalization_factor=2.0),
            _same(channels=8, mask_size=(8, 6), psa_type="collect", psa_softmax=False, shrink_factor=3),
            _same(channels=8, mask_size=(5, 7), psa_type="distribute", shrink_factor=1),
            _same(channels=8, mask_size=(5, 7), compact=True),
            _same(channels=8, mask_size=(5, 7), compact=True, psa_type="collect"),
        ),
    ),
}


class Cascade(nn.ModuleList):
    """mmsegmentation's CascadeEncoderDecoder without the encoder: scores, and those of the first head."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__([first, second])

    def forward(self, stages: list[Tensor]) -> tuple[Tensor, Tensor]:
        coarse = self[0](stages)
        return self[1](stages, coarse), coarse


def _class_of(models: Any, name: str) -> Any:
    return getattr(models, name, None) or getattr(models.decode_heads, name)


def their_head(name: str, options: Options, channels: Mapping[int, int], classes: int, align_corners: bool) -> Any:
    """mmsegmentation's head in evaluation, with drawn weights and statistics."""
    models, _ = import_mmsegmentation()
    case = COMPARED[name]
    torch.manual_seed(0)
    shared = {"num_classes": classes, "norm_cfg": {"type": "BN", "requires_grad": True}, "align_corners": align_corners}
    several = len(case.stages) > 1 and not {"c1_in_channels", "coarse"} & options.keys()
    inputs: dict[str, Any] = {"in_channels": channels[5], "in_index": len(case.stages) - 1}
    if several:
        inputs = {"in_channels": [channels[n] for n in case.stages], "in_index": list(range(len(case.stages)))}
    own = {name: value for name, value in options.items() if name != "coarse"}
    built = _class_of(models, case.theirs)(**{**inputs, **shared, **own})
    if "coarse" in options:
        first = {"in_channels": channels[4], "in_index": 0, **options["coarse"], **shared}
        built = Cascade(_class_of(models, "FCNHead")(**first), built)
    without_operators(built)
    draw(built)
    return built.eval()


@torch.no_grad()
def draw(module: nn.Module) -> None:
    """Weights, biases and statistics, so that nothing is hidden by a zero."""
    for key, value in [*module.named_parameters(), *module.named_buffers()]:
        if key.endswith("running_var") or (value.ndim == 1 and key.endswith("weight")):
            value.uniform_(0.75, 1.25)
        elif value.is_floating_point():
            value.normal_(0, 0.1 if value.ndim < 2 else value[0].numel() ** -0.5)
        if value.ndim == 0 and value.is_floating_point():
            value.fill_(0.7)


def our_head(name: str, options: Options, channels: Mapping[int, int], classes: int, align_corners: bool) -> Head:
    """Ours in the wiring of mmsegmentation, in evaluation."""
    given = {**options, "align_corners": align_corners}
    config = resolve(name, "resnet50c", [str(index) for index in range(classes)], None, "mmseg", given)
    return MODELS[name].head.build(config.options, channels, classes).eval()


def renamed(name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their head's state as ours names it, by the table of the conversion."""
    table = next(rule.table for rule in RULES if rule.model == name)
    found, unknown = key_maps.renamed(state, table)
    if unknown:
        raise ValueError(f"{name}: the conversion has no place for {unknown[0]}")
    return found


def counters(module: nn.Module) -> dict[str, Tensor]:
    return {key: value for key, value in module.state_dict().items() if key.endswith("num_batches_tracked")}


class Kept(Watch):
    """Keeps the further outputs of a head."""

    def __init__(self) -> None:
        self.found: dict[str, Tensor] = {}

    def further(self, name: str, output: Callable[[], Tensor]) -> None:
        self.found[name] = output()


# The further outputs in the order in which their head returns them behind the scores.
FURTHER = {"encnet": ("presence",), "danet": ("position", "channel"), "ocr": ("coarse",)}


def both(
    name: str, options: tuple[Options, Options], channels: Mapping[int, int], classes: int, align_corners: bool = False
) -> tuple[Any, Head]:
    """Their head and ours with the same weights."""
    theirs = their_head(name, options[0], channels, classes, align_corners)
    ours = our_head(name, options[1], channels, classes, align_corners)
    ours.load_state_dict(counters(ours) | renamed(name, theirs.state_dict()))
    return theirs, ours


def differences(
    name: str, options: tuple[Options, Options], size: tuple[int, int], align_corners: bool = False
) -> tuple[float, float]:
    """Of narrow heads in float64: the largest difference of any output, and of any gradient (of inputs and of all
    parameters) relative to its largest value, or to 1e-6 of the largest of all: behind a softmax some are 0 but for
    rounding."""
    theirs, ours = (head.double() for head in both(name, options, NARROW, 5, align_corners))
    stages = COMPARED[name].stages
    torch.manual_seed(1)
    sizes = COMPARED[name].sizes(size)
    maps = [torch.randn(2, NARROW[stage], *sizes[stage], dtype=torch.float64).relu_() for stage in stages]
    first, second = ([x.clone().requires_grad_() for x in maps] for _ in range(2))
    found, kept = theirs(first), Kept()
    expected = list(found) if isinstance(found, tuple) else [found]
    scores = ours(dict(zip(stages, second, strict=True)), kept)
    got = [scores, *(kept.found[key] for key in FURTHER.get(name, ()))]
    forward = max(float((a - b).abs().max()) for a, b in zip(got, expected, strict=True))
    weights = [torch.randn_like(x) for x in expected]
    parameters = {key: p for key, p in theirs.named_parameters() if p.requires_grad}
    mine = dict(ours.named_parameters())
    pairs = [(p, mine[key]) for given, p in parameters.items() for key in renamed(name, {given: p})]
    leaves = ([*first, *(a for a, _ in pairs)], [*second, *(b for _, b in pairs)])
    wanted, had = (
        torch.autograd.grad(sum((x * w).sum() for x, w in zip(outs, weights, strict=True)), given, allow_unused=True)
        for outs, given in zip((expected, got), leaves, strict=True)
    )
    largest = max(float(a.abs().max()) for a in wanted if a is not None)
    worst = 0.0
    for a, b in zip(wanted, had, strict=True):
        if a is not None and b is not None:
            worst = max(worst, float((a - b).abs().max() / a.abs().max().clamp_min(1e-6 * largest)))
        elif (a if b is None else b) is not None and float((a if b is None else b).abs().max()) > 0:
            worst = float("inf")
    return forward, worst


# --- The table ----------------------------------------------------------------------------------------------------

HEADINGS = {
    "name": "",
    "forward_error": "error",
    "gradient_error": "of gradients",
    "their_seconds": "theirs",
    "seconds": "ours",
    "ratio": "faster by",
    "folded_ratio": "folded by",
    "their_memory": "theirs",
    "memory": "ours",
    "their_multiply_adds": "theirs",
    "multiply_adds": "ours",
    "full_error": "at this size",
}
NOTES = (
    "error and of gradients: narrow heads in float64 at 17x33 and 24x40, every set of options; at this size: in float32, "
    "relative to the largest score",
    "memory: beyond weights, stages and scores; PSANet's operator, compiled there, stands in its literal form here",
)


def compared_row(name: str, size: tuple[int, int], device: torch.device, repeat: int) -> Row:
    """Their head and ours with the published widths on the same stages, in inference."""
    case = COMPARED[name]
    small = [
        differences(name, options, at)
        for options in case.small
        for at in ((17, 33), (24, 40))
        if not options[0].get("compact")
    ]
    theirs, ours = (head.to(device) for head in both(name, case.published, CHANNELS, 19))
    folded = copy.deepcopy(ours)
    with torch.no_grad():
        for module in folded.modules():
            if isinstance(module, ConvNormAct):
                fold_norm(module)
    maps = [torch.randn(1, CHANNELS[stage], *size, device=device).relu_() for stage in case.stages]
    features = dict(zip(case.stages, maps, strict=True))

    def their_scores() -> Tensor:
        found = theirs(maps)
        return found[0] if isinstance(found, tuple) else found

    cases = [
        Case("theirs", their_scores),
        Case("ours", lambda: ours(features), "theirs"),
        Case("folded", lambda: folded(features), "theirs"),
    ]
    first, plain, last = compare(cases, device, repeat)
    return {
        "name": name,
        "forward_error": max(error for error, _ in small),
        "gradient_error": max(error for _, error in small),
        "their_seconds": first["seconds"],
        "seconds": plain["seconds"],
        "ratio": plain["ratio"],
        "folded_ratio": last["ratio"],
        "their_memory": first["extra_memory"],
        "memory": plain["extra_memory"],
        "their_multiply_adds": first["multiply_adds"],
        "multiply_adds": plain["multiply_adds"],
        "full_error": max(plain["error"], last["error"]),
    }
