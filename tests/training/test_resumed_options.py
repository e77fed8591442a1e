"""Every option beside --resume: it counts from there on, or is refused in one line; never neither."""

from __future__ import annotations

import copy
import csv
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from stored_runs import checkpoint, one_line
from test_fields import BASE, CHANGES, NINE, RUN

import nonlocalseg as nls
from nonlocalseg.cli import main
from nonlocalseg.recipes.schema import Phase
from nonlocalseg.training.checkpoints import FIXED, SWITCHES
from nonlocalseg.training.module import SegmentationTraining
from nonlocalseg.training.optimisation import poly_factor
from nonlocalseg.training.plan import PHASE_FIELDS, PLAN_FIELDS, Plan, resolve, write_plan
from nonlocalseg.training.runs import planned, train
from nonlocalseg.values import changed

GIVEN: dict[str, Any] = {**{name: change for name, (change, _) in CHANGES.items()}, **RUN, "data": "voc2012"}
APPLIED = [name for name in (*PHASE_FIELDS, *PLAN_FIELDS) if name not in FIXED]


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """As much of the folder of a run as is read before its checkpoint."""
    phase = replace(BASE, data="folder", root=str(tmp_path), data_options={})
    write_plan(tmp_path / "run/recipe.yaml", Plan(phases=(phase, phase), pretrained=False))
    return tmp_path / "run"


@pytest.mark.parametrize("name", [*PHASE_FIELDS, *PLAN_FIELDS])
def test_every_option_is_applied_or_refused(name, begun):
    stored, given = resolve(begun / "recipe.yaml", {}), {name: GIVEN[name]}
    if name == "data_options":
        given[name] = {"val_fraction": 0.25}
    if name == "val_split":
        given[name] = "none"
    if name in FIXED:
        with pytest.raises(ValueError, match=f"--{name.replace('_', '-')}: .* cannot change that, because") as error:
            planned(None, None, begun, given)
        one_line(error)
    else:
        plan, _ = planned(None, None, begun, given)
        owners = [(plan, stored)] if name in PLAN_FIELDS else list(zip(plan.phases, stored.phases, strict=True))
        for new, old in owners:
            assert getattr(new, name) != getattr(old, name)
            assert new == changed(old, {name: getattr(new, name)})


@pytest.mark.parametrize("name", FIXED)
def test_what_is_fixed_may_be_repeated(name, begun):
    options = {"init_from": "a", "backbone_weights": "b", "layer_decay": 0.5, "ema": 0.5, "accumulate": 2}
    write_plan(begun / "recipe.yaml", stored := resolve(begun / "recipe.yaml", options))
    owner = stored.phases[0] if name in PHASE_FIELDS else stored
    assert planned(None, None, begun, {name: getattr(owner, name)})[0] == stored


def test_numbers_of_switches_may_change(begun):
    options = dict.fromkeys(SWITCHES, 0.5)
    write_plan(begun / "recipe.yaml", resolve(begun / "recipe.yaml", options))
    assert planned(None, None, begun, dict.fromkeys(SWITCHES, 0.9))[0].phases[0].ema == 0.9


def test_a_refusal_on_the_command_line(begun, capsys):
    assert main(["train", "--resume", str(begun), "--frozen-backbone"]) == 2
    assert "error: --frozen-backbone: " in capsys.readouterr().err


OLD = replace(BASE, optimizer="adamw", layer_decay=0.5, ema=0.5)


@pytest.fixture(scope="module")
def network() -> nls.Segmenter:
    torch.manual_seed(0)
    return nls.create_model("fcn", "mobilenetv2_035", num_classes=9, channels=8, auxiliary_channels=8)


@pytest.fixture(scope="module")
def stored(network) -> tuple[Any, Any, Any]:
    """What a checkpoint holds after a step: weights, optimizer, schedule."""
    module, optimizer, schedule = started(network, OLD)
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    schedule.step()
    return copy.deepcopy((module.state_dict(), optimizer.state_dict(), schedule.state_dict()))


@pytest.mark.parametrize("name", [name for name in APPLIED if name in PHASE_FIELDS])
def test_the_state_of_a_checkpoint_fits_the_changed_option_and_does_not_win(name, network, stored):
    """As Lightning puts it back, one after the other."""
    new = changed(OLD, {name: GIVEN[name]})
    module, optimizer, schedule = parts = started(network, new)
    rates, loss = numbers(optimizer, "initial_lr"), loss_of(module)
    for part, state in zip(parts, stored, strict=True):
        part.load_state_dict(state)
    told: Any = SimpleNamespace(optimizers=[optimizer], lr_scheduler_configs=[SimpleNamespace(scheduler=schedule)])
    module.trainer = told
    module.on_train_start()
    assert numbers(optimizer, "initial_lr") == rates
    assert [lr for lr, _, _ in numbers(optimizer, "lr")] == [lr * poly_factor(1, new) for lr, _, _ in rates]
    assert {float(state["step"]) for state in optimizer.state.values()} == {1.0}
    assert loss_of(module) == loss


def started(network: nls.Segmenter, phase: Phase) -> tuple[SegmentationTraining, Any, Any]:
    module = SegmentationTraining(network, phase, 0)
    made = module.configure_optimizers()
    return module, made["optimizer"], made["lr_scheduler"]["scheduler"]


def loss_of(module: SegmentationTraining) -> float:
    drawn = torch.Generator().manual_seed(0)
    scores = {name: torch.randn(2, 9, 16, 16, generator=drawn) for name in ("out", "aux")}
    return float(module.loss(scores, torch.randint(9, (2, 16, 16), generator=drawn))["loss"])


def numbers(optimizer: torch.optim.Optimizer, rate: str) -> list[tuple[float, float, int]]:
    return [(group[rate], group["weight_decay"], len(group["params"])) for group in optimizer.param_groups]


def test_a_resumed_run_takes_other_rates_and_decays(run):
    """They are in the checkpoint too, which must not win over what is asked for."""
    done = run(steps=4, val_every=2)
    options = {"rate": 0.02, "head_rate_multiplier": 1.0, "weight_decay": 0.3, "norm_decay": False}
    train(resume=done.folder, steps=6, progress=False, **options)
    state = checkpoint(done.folder)
    groups = state["optimizer_states"][0]["param_groups"]
    assert {group["initial_lr"] for group in groups} == {0.02}
    assert {group["weight_decay"] for group in groups} == {0.3, 0.0}
    assert state["lr_schedulers"][0]["base_lrs"] == [group["initial_lr"] for group in groups]


def test_a_resumed_run_takes_other_data_loss_and_average(run):
    done = run(steps=3, val_split="none", ema=0.9, optimizer="adamw")
    options = {
        "val_split": "val",
        "batch_size": 3,
        "crop": 32,
        "class_weights": NINE,
        "ema": 0.5,
        "channels_last": True,
    }
    again = train(resume=done.folder, steps=6, data_options={"length": 5}, progress=False, **options)
    with (done.folder / "metrics.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file) if row["miou"]] == ["6"]
    assert again.model.config is not None
    assert again.model.config.trained_crop == (32, 32)


def test_a_recipe_that_was_changed_by_hand_does_not_go_on(run):
    """Options beside --resume are compared with recipe.yaml, and that with the checkpoint."""
    path = (done := run(steps=1)).folder / "recipe.yaml"
    whole = path.read_text()
    for old, new in (("frozen_backbone: false", "frozen_backbone: true"), ("layer_decay: null", "layer_decay: 0.5")):
        assert old in whole
        path.write_text(whole.replace(old, new))
        with pytest.raises(ValueError, match=r"was begun with .* put recipe\.yaml back") as error:
            train(resume=done.folder, steps=2, progress=False)
        one_line(error)
