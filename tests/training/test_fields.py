"""Every field of a phase and of a plan does something: what it decides is observed before and after a change."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import lightning
import pytest
import torch
from rich.console import Console

import nonlocalseg as nls
from nonlocalseg.recipes.schema import Phase
from nonlocalseg.training import launching, trainer
from nonlocalseg.training.data import SegmentationData
from nonlocalseg.training.folder import RunFolder
from nonlocalseg.training.forecast import dry_run
from nonlocalseg.training.module import SegmentationTraining
from nonlocalseg.training.optimisation import poly_factor
from nonlocalseg.training.plan import PHASE_FIELDS, PLAN_FIELDS, Plan
from nonlocalseg.training.runs import train
from nonlocalseg.training.trainer import fit_phase

NINE = tuple(float(weight) for weight in range(1, 10))
BASE = Phase(
    data="synthetic",
    data_options={"size": (48, 96), "length": 4},
    steps=10,
    batch_size=2,
    crop=(32, 32),
    ohem_min_kept=10,
)
# What each field is changed to, and what else has to hold for it to matter.
CHANGES: dict[str, tuple[Any, dict[str, Any]]] = {
    "data": ("folder", {"data_options": {}}),
    "root": ("elsewhere", {"data": "folder", "data_options": {}}),
    "split": ("test", {}),
    "val_split": (None, {}),
    "data_options": ({"size": (48, 96), "length": 5}, {}),
    "steps": (11, {}),
    "batch_size": (4, {}),
    "crop": ((32, 48), {}),
    "short_side": (96, {}),
    "scale": ((1.0, 1.5), {}),
    "flip": (1.0, {}),
    "brightness": (0.5, {}),
    "class_balance": (0.2, {}),
    "optimizer": ("adamw", {}),
    "rate": (0.1, {}),
    "head_rate_multiplier": (5.0, {}),
    "layer_decay": (0.5, {}),
    "weight_decay": (0.1, {}),
    "norm_decay": (False, {}),
    "power": (2.0, {}),
    "warmup_steps": (3, {}),
    "min_rate": (0.005, {}),
    "gradient_clip": (1.0, {}),
    "ohem": (False, {"ohem_threshold": 0.05}),
    "ohem_threshold": (0.05, {}),
    "ohem_min_kept": (300, {"ohem_threshold": 0.05}),
    "ohem_rule": ("mmseg", {}),
    "loss_average": ("all", {}),
    "auxiliary_weight": (0.2, {}),
    "class_weights": (NINE, {}),
    "terms": ({"dice": 1.0}, {}),
    "frozen_backbone": (True, {}),
    "frozen_batchnorm": (True, {}),
    "ema": (0.9, {}),
    "val_every": (3, {}),
}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return nls.create_model("fcn", "mobilenetv2_035", num_classes=9, channels=8, auxiliary_channels=8)


def data_of(phase: Phase) -> Any:
    """The first batch of a phase and the number of images, or why there are none."""
    try:
        data = SegmentationData(phase, (0.5, 0.5, 0.5), 0, 0, 1)
    except (ValueError, OSError) as error:
        return str(error)
    images = data.first_batch(1)["image"]
    columns = torch.arange(images.shape[3])  # tells a picture from its mirror image
    return (
        tuple(images.shape),
        float((images * columns).sum()),
        len(data.train_images),
        len(data.val_images or ()),
        len(data.order(0, 1)),
    )


def training_of(phase: Phase, network: nls.Segmenter) -> Any:
    """The loss on stored scores, the optimizer and its rates, what is frozen and how it is validated."""
    module = SegmentationTraining(copy.deepcopy(network), phase, 0).train()
    generator = torch.Generator().manual_seed(0)
    scores = {name: torch.randn(2, 9, 16, 16, generator=generator) for name in ("out", "aux")}
    target = torch.randint(9, (2, 16, 16), generator=generator)
    target[:, :4] = 255
    made = module.configure_optimizers()["optimizer"]
    return (
        float(module.loss(scores, target)["loss"]),
        type(made),
        [(group["initial_lr"], group["weight_decay"], len(group["params"])) for group in made.param_groups],
        [phase.rate * poly_factor(step, phase) for step in (0, 5, 9)],
        sum(part.training for part in module.model.modules()),
        module.view,
    )


class Told:
    """Stands in for Lightning's trainer: remembers what it is told, and trains nothing."""

    def __init__(self, **options: Any) -> None:
        self.options = {name: options[name] for name in options if isinstance(options[name], (int, float, str))}
        self.options["callbacks"] = [type(callback).__name__ for callback in options["callbacks"]]
        self.options["policies"] = [getattr(callback, "policy", None) for callback in options["callbacks"]]
        self.options["loggers"] = [type(logger).__name__ for logger in options["logger"]]

    def fit(self, module: SegmentationTraining, datamodule: SegmentationData, **others: Any) -> None:
        raise Stop(self.options, module, datamodule)


class Stop(Exception):
    pass


def trainer_of(phase: Phase, network: nls.Segmenter, monkeypatch, tmp_path) -> Any:
    """What Lightning's trainer is told."""
    monkeypatch.setattr(lightning, "Trainer", Told)
    plan = Plan(phases=(phase,), workers=0)
    try:
        fit_phase(plan, 0, copy.deepcopy(network), RunFolder(tmp_path, None, "", 1), Console(quiet=True))
    except (ValueError, OSError) as error:
        return str(error)
    except Stop as stop:
        return stop.args[0]


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    """What was observed of a phase, so that the common one is observed once."""
    return {}


@pytest.mark.parametrize("field", PHASE_FIELDS)
def test_every_field_of_a_phase_changes_the_training(field, network, seen, monkeypatch, tmp_path):
    def observed(phase):
        if repr(phase) not in seen:
            training = training_of(phase, network)
            seen[repr(phase)] = data_of(phase), training, trainer_of(phase, network, monkeypatch, tmp_path)
        return seen[repr(phase)]

    value, others = CHANGES[field]
    before = replace(BASE, **others)
    assert observed(before) != observed(replace(before, **{field: value}))


def test_what_is_observed_of_a_phase_is_no_accident(network, monkeypatch, tmp_path):
    for observe in (data_of, lambda phase: training_of(phase, network)):
        assert observe(BASE) == observe(replace(BASE))
    told = trainer_of(BASE, network, monkeypatch, tmp_path)
    assert told == trainer_of(BASE, network, monkeypatch, tmp_path)
    assert told["max_steps"] == 10
    assert "Average" not in told["callbacks"]
    assert "Average" in trainer_of(replace(BASE, ema=0.9), network, monkeypatch, tmp_path)["callbacks"]


# What each option of a run is changed to; some need a GPU, which is feigned, and weights are not downloaded.
RUN: dict[str, Any] = {
    "model": "apnb",
    "backbone": "resnet10t",
    "model_options": {"channels": 16, "auxiliary_channels": 8},
    "pretrained": True,
    "backbone_weights": "missing.safetensors",
    "init_from": "missing",
    "seed": 1,
    "precision": "bf16",
    "devices": 2,
    "num_nodes": 2,
    "workers": 1,
    "accumulate": 2,
    "checkpointing": True,
    "channels_last": True,
    "sync_batchnorm": True,
    "deterministic": False,
    "broken_steps": "skip",
    "logger": (),
}
SMALL_RUN: dict[str, Any] = {
    **{name: getattr(BASE, name) for name in ("data", "data_options", "steps", "batch_size", "crop")},
    **{"model": "fcn", "backbone": "mobilenetv2_035", "model_options": {"channels": 8, "auxiliary_channels": 8}},
    "workers": 0,
}


def undemanding(*names: str, pretrained: bool, **options: Any) -> nls.Segmenter:
    if pretrained:
        raise ValueError("the download was asked for")
    return nls.create_model(*names, **options)


def run_of(options: dict[str, Any], monkeypatch, tmp_path) -> Any:
    """The model before the first step, how much it keeps of one, its data, and what Lightning's trainer is told."""
    monkeypatch.setattr(lightning, "Trainer", Told)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(trainer, "create_model", undemanding)
    monkeypatch.setattr(launching.Crew, "start", lambda crew: None)  # which would begin this test run once more
    kept: list[int] = []
    try:
        train(out=tmp_path / "run", progress=False, **options)
    except (ValueError, OSError) as error:
        return str(error)
    except Stop as stop:
        told, module, data = stop.args
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        module.model(data.first_batch(1)["image"])
    return (
        told,
        [type(part).__name__ for part in module.model.modules()],
        [weight.stride() for weight in module.model.parameters()],
        sum(float(weight.detach().abs().sum()) for weight in module.model.parameters()),
        (sum(kept), module.seed, module.channels_last, data.workers),
    )


@pytest.mark.parametrize("field", PLAN_FIELDS)
def test_every_field_of_a_plan_changes_the_run(field, seen, monkeypatch, tmp_path):
    if "run" not in seen:
        seen["run"] = run_of(SMALL_RUN, monkeypatch, tmp_path)
        assert seen["run"] == run_of(SMALL_RUN, monkeypatch, tmp_path)
        assert not isinstance(seen["run"], str)
    assert run_of({**SMALL_RUN, field: RUN[field]}, monkeypatch, tmp_path) != seen["run"]


def test_the_recipe_of_a_plan_is_shown(capsys):
    """It says where the presets came from."""
    options = {name: SMALL_RUN[name] for name in ("data_options", "crop", "batch_size")}
    dry_run("synthetic/fcn-resnet10t", **options)
    assert "synthetic/fcn-resnet10t: fcn on resnet10t" in capsys.readouterr().out
    dry_run(**SMALL_RUN)
    assert "no recipe: fcn on mobilenetv2_035" in capsys.readouterr().out
