"""The fully resolved options of one run: a recipe's presets, what the caller gave, and the file that repeats it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml

from nonlocalseg.data.catalog import DATASETS
from nonlocalseg.files import write_text
from nonlocalseg.training.loggers import LOGGERS
from nonlocalseg.training.recipes import Phase, find_recipe

PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


@dataclass(frozen=True)
class Plan:
    """Everything that decides how a run ends: what `recipe.yaml` holds."""

    phases: tuple[Phase, ...]
    model: str = "ann"
    backbone: str = "resnet50c"
    model_options: Mapping[str, Any] = field(default_factory=dict)
    """Options of `create_model`, such as wiring or output_stride."""
    pretrained: bool = False
    backbone_weights: str | None = None
    init_from: str | None = None
    """Saved model that training starts from; its classifiers are made anew where the classes differ."""
    recipe: str | None = None
    """Name of the recipe that the presets came from."""
    seed: int = 0
    precision: str = "32"
    """`32`, `bf16` or `16` (automatic mixed precision)."""
    devices: int | str = "auto"
    workers: int | None = None
    """Processes that read images; None for up to four."""
    accumulate: int = 1
    """Parts that each batch is split into, one after another, to save memory."""
    checkpointing: bool = False
    """Recompute the backbone's activations in the backward pass, to save memory; batch norm then counts each batch twice
    in its running statistics."""
    channels_last: bool = False
    sync_batchnorm: bool | None = None
    """Batch norm over all devices; None where there are several GPUs, as both papers and mmsegmentation train."""
    deterministic: bool = True
    """GPU kernels that give the same result each time; CPU training always does."""
    logger: Sequence[str] = ("tensorboard",)
    """Where the curves go beside metrics.csv: `tensorboard`, `wandb`, `mlflow`."""

    def __post_init__(self) -> None:
        if not self.phases:
            raise ValueError("a run needs at least one phase")
        for phase in self.phases:
            _check_phase(phase)
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision {self.precision!r} is not one of {', '.join(PRECISIONS)}")
        if self.accumulate < 1:
            raise ValueError(f"accumulate is {self.accumulate}: give 1 or more")
        for phase in self.phases:
            if phase.batch_size % self.accumulate:
                raise ValueError(
                    f"batch_size {phase.batch_size} cannot be split into {self.accumulate} accumulated parts: "
                    f"give a multiple of {self.accumulate}"
                )
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"workers is {self.workers}: give 0 or more")
        for name in self.logger:
            if name not in LOGGERS:
                raise ValueError(f"logger {name!r} is not one of {', '.join(LOGGERS)}")


def device_count(plan: Plan) -> int:
    """The number of devices that a run uses: all GPUs, or a single CPU process, where the plan leaves it open."""
    if isinstance(plan.devices, int) or str(plan.devices).isdigit():
        return int(plan.devices)
    return max(1, torch.cuda.device_count())


PHASE_FIELDS = {f.name for f in dataclasses.fields(Phase)}
PLAN_FIELDS = {f.name for f in dataclasses.fields(Plan)} - {"phases", "recipe"}


def _check_phase(phase: Phase) -> None:
    """ValueError in one line for the first option of `phase` that cannot work."""
    if not phase.data:
        raise ValueError("no data set is given: add --data NAME (see `nonlocalseg list datasets`) or a recipe")
    for name in ("split", "val_split"):
        splits = DATASETS[phase.data].splits if phase.data in DATASETS else ()
        if splits and (
            unknown := [part for part in (getattr(phase, name) or splits[0]).split("+") if part not in splits]
        ):
            known = ", ".join(splits) + (", or none" if name == "val_split" else "")
            raise ValueError(f"{name}: {phase.data} has no split {unknown[0]!r}; choose from {known}")
    if len(phase.crop) != 2 or min(phase.crop) < 16:
        raise ValueError(f"crop is {tuple(phase.crop)}: give height and width of 16 pixels or more")
    if phase.optimizer not in ("sgd", "adamw"):
        raise ValueError(f"optimizer {phase.optimizer!r} is not one of sgd, adamw")
    for name in ("steps", "batch_size", "val_every", "rate", "head_rate_multiplier", "gradient_clip"):
        value = getattr(phase, name)
        if value is not None and not value > 0:
            raise ValueError(f"{name} is {value}: give more than 0")
    for name in ("weight_decay", "warmup_steps", "min_rate", "power", "auxiliary_weight", "brightness"):
        if getattr(phase, name) < 0:
            raise ValueError(f"{name} is {getattr(phase, name)}: give 0 or more")
    if phase.short_side is not None and phase.short_side < 16:
        raise ValueError(f"short_side is {phase.short_side}: give 16 pixels or more")
    if len(phase.scale) != 2 or not 0 < phase.scale[0] <= phase.scale[1]:
        raise ValueError(f"scale is {tuple(phase.scale)}: give the smallest and the largest factor, both above 0")
    if not 0 <= phase.flip <= 1:
        raise ValueError(f"flip is {phase.flip}: give a probability between 0 and 1")
    if phase.layer_decay is not None and not 0 < phase.layer_decay <= 1:
        raise ValueError(f"layer_decay is {phase.layer_decay}: give a factor up to 1, for example 0.8")
    if phase.loss_average not in (None, "valid", "all"):
        raise ValueError(f"loss_average {phase.loss_average!r} is not one of valid, all")
    if phase.ema is not None and not 0 < phase.ema < 1:
        raise ValueError(f"ema is {phase.ema}: give a decay between 0 and 1, for example 0.999")


def resolve(source: str | Path | None, given: Mapping[str, Any]) -> Plan:
    """The plan of `source` (a recipe's name, a recipe.yaml, or None) with the options `given` put over it.

    An option of `Phase` applies to every phase; where the phases have several data sets, `root` is a folder that holds
    one for each, named as the data set is. Raises ValueError for unknown recipes, options and values.
    """
    unknown = sorted(set(given) - PHASE_FIELDS - PLAN_FIELDS)
    if unknown:
        raise ValueError(f"no training option is called {unknown[0]!r} (see `nonlocalseg train --help`)")
    start = _start(source)
    phases = start.pop("phases")
    over_phase = {name: value for name, value in given.items() if name in PHASE_FIELDS}
    over_plan = {name: value for name, value in given.items() if name in PLAN_FIELDS}
    if over_phase.get("val_split") == "none":
        over_phase["val_split"] = None
    for name in ("crop", "scale", "class_weights"):
        if isinstance(over_phase.get(name), list):
            over_phase[name] = tuple(over_phase[name])
    if "logger" in over_plan:
        chosen = over_plan["logger"]
        over_plan["logger"] = (chosen,) if isinstance(chosen, str) else tuple(dict.fromkeys(chosen))
    if "model_options" in over_plan:
        over_plan["model_options"] = {**start.get("model_options", {}), **over_plan["model_options"]}
    if over_plan.get("backbone_weights") or over_plan.get("init_from"):
        over_plan.setdefault("pretrained", False)
    resolved = tuple(dataclasses.replace(phase, **over_phase) for phase in phases)
    if over_phase.get("root") is not None and len({phase.data for phase in resolved}) > 1:
        resolved = tuple(dataclasses.replace(p, root=str(Path(over_phase["root"]) / p.data)) for p in resolved)
    return Plan(phases=resolved, **{**start, **over_plan})


def _start(source: str | Path | None) -> dict[str, Any]:
    """The fields of the plan before anything is put over it; `phases` are not yet checked."""
    if source is None:
        return {"phases": (Phase(),)}
    if str(source).endswith((".yaml", ".yml")):
        return read_plan(source)
    recipe = find_recipe(str(source))
    return {
        "phases": recipe.phases,
        "model": recipe.model,
        "backbone": recipe.backbone,
        "model_options": dict(recipe.options),
        "pretrained": recipe.pretrained,
        "recipe": recipe.name,
    }


def write_plan(path: str | Path, plan: Plan) -> None:
    """Write `plan` as YAML that `read_plan` reads back to the same plan."""
    fields = _plain(dataclasses.asdict(plan))
    fields["phases"] = fields.pop("phases")  # last: the longest
    text = yaml.safe_dump(fields, sort_keys=False, default_flow_style=None)
    write_text(path, "# nonlocalseg train THIS-FILE repeats the run\n" + text)


def read_plan(path: str | Path) -> dict[str, Any]:
    """The fields of the plan in a recipe.yaml. Raises ValueError or FileNotFoundError that names the file."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: give the recipe.yaml of a run, or a recipe's name")
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
        phases = tuple(Phase(**{key: _tuples(value) for key, value in phase.items()}) for phase in fields.pop("phases"))
        fields = {key: _tuples(value) for key, value in fields.items()}
        Plan(phases=phases, **fields)
    except (yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is not a recipe.yaml of this version: {str(error).splitlines()[0]}") from error
    return {"phases": phases, **fields}


def _plain(value: Any) -> Any:
    """`value` with tuples as lists, for YAML."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
