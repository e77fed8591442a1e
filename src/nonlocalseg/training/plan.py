"""The fully resolved options of one run: a recipe's presets, what the caller gave, and the file that repeats it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator

from nonlocalseg.choices import pick
from nonlocalseg.data.source import DataSource, read_recipe
from nonlocalseg.files import write_text
from nonlocalseg.recipes.schema import Phase
from nonlocalseg.values import (
    Count,
    Hidden,
    Metavar,
    Natural,
    Precision,
    changed,
    from_plain,
    is_mapping,
    is_row,
    names_of,
    options_of,
    plain,
    value,
)

LoggerName = Literal["tensorboard", "wandb", "mlflow"]
BrokenSteps = Literal["stop", "skip"]


def _each_once(given: object) -> object:
    """One text stands for a list of it; nothing is kept twice."""
    if isinstance(given, str):
        return (given,)
    if not is_row(given):
        return given
    return tuple(item for place, item in enumerate(given) if item not in given[:place])


def _tuples(given: object) -> object:
    """Lists, as YAML and JSON hold them, as tuples."""
    if is_row(given):
        return tuple(_tuples(item) for item in given)
    return {name: _tuples(item) for name, item in given.items()} if is_mapping(given) else given


@value
class Plan:
    """Everything that decides how a run ends: what `recipe.yaml` holds."""

    recipe: Annotated[str | None, Hidden()] = None
    """Name of the recipe that the presets came from."""

    model: Annotated[str, Metavar("NAME")] = "ann"
    """Name of the model: fcn, apnb, afnb, ann, ... (`nonlocalseg list models`)."""

    backbone: Annotated[str, Metavar("NAME")] = "resnet50c"
    """Any timm backbone with `features_only`."""

    model_options: Annotated[dict[str, object], BeforeValidator(_tuples)] = field(default_factory=dict[str, object])
    """Further options of the model, such as key_channels=128."""

    pretrained: bool | None = None
    """ImageNet weights of the backbone, downloaded where they are not in the cache; by default for photographs, where
    they can be had."""

    backbone_weights: Annotated[str | None, Metavar("FILE")] = None
    """Local file with weights of the backbone."""

    init_from: Annotated[str | None, Metavar("MODEL")] = None
    """Model to start from: a folder, or a name of the zoo or the hub, such as mmseg:ann-r101-ade20k; its classifiers are made
    anew where the classes differ."""

    seed: Natural = 0
    """Decides initial weights, order of images, augmentation and dropout."""

    precision: Precision = "32"
    """Numbers of 32 bits, or automatic mixed precision with bf16 or 16."""

    devices: Count | Literal["auto"] = "auto"
    """Number of GPUs (or CPU processes) on each machine; auto: as torchrun or SLURM started them, otherwise all GPUs."""

    num_nodes: Count | None = None
    """Number of machines that train together; by default as torchrun or SLURM started them, otherwise one."""

    workers: Natural | None = None
    """Processes that read images; by default up to four."""

    accumulate: Count = 1
    """Split each batch into this many parts, one after another, to save memory."""

    checkpointing: bool = False
    """Recompute the backbone's activations in the backward pass, to save memory; batch norm then counts each batch twice
    in its running statistics."""

    channels_last: bool = False
    """Memory format channels_last, often faster on GPUs."""

    sync_batchnorm: bool | None = None
    """Batch norm over all devices; by default where there are several, as both papers and mmsegmentation train."""

    deterministic: bool = True
    """GPU kernels that give the same result each time; without, they may be faster, and no two runs are alike."""

    broken_steps: BrokenSteps = "stop"
    """What follows where a step's loss or gradient is no number: stop, or skip the step, which leaves weights and
    statistics as they were. Its images are named and kept in the run's broken/."""

    logger: Annotated[tuple[LoggerName, ...], BeforeValidator(_each_once)] = ("tensorboard",)
    """Where the curves go beside metrics.csv, one or several of tensorboard, wandb (Weights & Biases; offline with
    WANDB_MODE=offline) and mlflow."""

    phases: Annotated[tuple[Phase, ...], Hidden()]
    """What is trained, one after the other, each from the weights of the one before."""

    def __post_init__(self) -> None:
        if not self.phases:
            raise ValueError("a run needs at least one phase")
        for phase in self.phases:
            if phase.batch_size % self.accumulate:
                raise ValueError(
                    f"batch_size {phase.batch_size} cannot be split into {self.accumulate} accumulated parts: "
                    f"give a multiple of {self.accumulate}"
                )


PHASE_FIELDS = names_of(Phase)
PLAN_FIELDS = tuple(name for name in names_of(Plan) if name not in ("phases", "recipe"))


def resolve(source: str | Path | None, given: Mapping[str, object]) -> Plan:
    """The plan of `source` (a recipe's name, a recipe.yaml, or None) with the options `given` put over it; None in it
    is an option that is not given.

    An option of `Phase` applies to every phase; where the phases have several data sets, `root` is a folder that holds
    one for each, named as the data set is. Raises ValueError for unknown recipes, options and values.
    """
    given = {name: item for name, item in given.items() if item is not None}
    for name in given:
        pick("training option", name, (*PHASE_FIELDS, *PLAN_FIELDS))
    phases, over_plan = _start(source, given)
    over_phase = {name: item for name, item in given.items() if name in PHASE_FIELDS}
    model_options = {**over_plan.get("model_options", {}), **_mapping(given, "model_options")}
    over_plan |= {name: item for name, item in given.items() if name in PLAN_FIELDS}
    over_plan["model_options"] = model_options
    if ("backbone_weights" in given or "init_from" in given) and "pretrained" not in given:
        over_plan["pretrained"] = False
    phases = tuple(changed(phase, over_phase) for phase in phases)
    if (root := given.get("root")) is not None and len({phase.data for phase in phases}) > 1:
        phases = tuple(changed(phase, {"root": str(Path(str(root)) / phase.data)}) for phase in phases)
    plan = Plan(**over_plan, phases=phases)
    for phase in plan.phases:
        phase.check()
        if phase.val_split is not None:
            phase.check(phase.val_split, "val_split")
    return plan


def _mapping(given: Mapping[str, object], name: str) -> dict[str, object]:
    found = given.get(name, {})
    if not is_mapping(found):
        raise ValueError(f"{name}: {found!r} is not names with values")
    return {str(key): item for key, item in found.items()}


def _start(source: str | Path | None, given: Mapping[str, object]) -> tuple[tuple[Phase, ...], dict[str, Any]]:
    """The phases, and the other fields of the plan, before anything is put over them."""
    if source is None:
        return (_own_phase(given),), {}
    if str(source).endswith((".yaml", ".yml")):
        plan = read_plan(source)
        return plan.phases, {name: getattr(plan, name) for name in names_of(Plan) if name != "phases"}
    from nonlocalseg.recipes.catalog import find_recipe  # needs the data sets, and they torch

    recipe = find_recipe(str(source))
    return recipe.phases, {
        "model": recipe.model,
        "backbone": recipe.backbone,
        "model_options": dict(recipe.options),
        "pretrained": recipe.pretrained,
        "recipe": recipe.name,
    }


def _own_phase(given: Mapping[str, object]) -> Phase:
    """What a phase begins with where no recipe is given: for one's own images what suits them."""
    from nonlocalseg.recipes.own_images import suited_to  # needs the data sets, and they torch

    root = given.get("root")
    if given.get("data") != "folder" or root is None:
        return Phase()
    source = changed(DataSource(split="train"), {name: given[name] for name in names_of(DataSource) if name in given})
    return suited_to(source, str(given.get("backbone", options_of(Plan)["backbone"].default)))


class _Spelt(yaml.SafeDumper):
    """Spells out what occurs twice, because `read_plan` takes no aliases."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def write_plan(path: str | Path, plan: Plan) -> None:
    """Write `plan` as YAML that `read_plan` reads back to the same plan."""
    text = yaml.dump(plain(plan), Dumper=_Spelt, sort_keys=False, default_flow_style=None)
    write_text(path, "# nonlocalseg train THIS-FILE repeats the run\n" + text)


def read_plan(path: str | Path) -> Plan:
    """The plan in a recipe.yaml. Raises ValueError or FileNotFoundError that names the file."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: give the recipe.yaml of a run, or a recipe's name")
    content = read_recipe(path)
    phases = tuple(from_plain(Phase, phase, path) for phase in content["phases"])
    return from_plain(Plan, {**content, "phases": phases}, path)
