"""Loggers by name: what they are told, that a resumed run goes on in the same place, and that mistakes are one line."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import yaml
from lightning.pytorch.loggers import Logger

from nonlocalseg.training import loggers
from nonlocalseg.training.runs import train

SHORT = {"steps": 2, "val_every": 1, "data_options": {"size": [48, 96], "length": 2}}


class Told(Logger):
    """A logger that remembers what it is told, in a list that all of its kind share."""

    opened: ClassVar[list[Told]] = []

    def __init__(self, *names: Any, id: str | None = None, run_id: str | None = None, **options: Any) -> None:
        super().__init__()
        self.names, self.options = names, options
        self.identity = id or run_id or f"drawn{len(self.opened)}"
        self.metrics: list[tuple[int | None, dict[str, float]]] = []
        self.hyperparameters: dict[str, Any] = {}
        self.finished = 0
        self.experiment = SimpleNamespace(finish=self.finish)
        self.opened.append(self)

    name = "told"

    @property
    def version(self) -> str:
        return self.identity

    def finish(self) -> None:
        self.finished += 1

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.metrics.append((step, dict(metrics)))

    def log_hyperparams(self, params: Any, *more: Any, **others: Any) -> None:
        self.hyperparameters = dict(params)


class Wandb(Told):
    opened: ClassVar[list[Told]] = []


class MLFlow(Told):
    opened: ClassVar[list[Told]] = []


@pytest.fixture
def services(monkeypatch):
    """W&B and MLflow replaced by loggers that remember; both packages count as installed."""
    monkeypatch.setattr(loggers, "WandbLogger", Wandb)
    monkeypatch.setattr(loggers, "MLFlowLogger", MLFlow)
    monkeypatch.setattr(loggers, "check_installed", lambda names: None)
    monkeypatch.setattr("nonlocalseg.training.runs.check_installed", lambda names: None)
    monkeypatch.setattr(Wandb, "opened", [])
    monkeypatch.setattr(MLFlow, "opened", [])
    return Wandb, MLFlow


def test_several_loggers_and_resuming(run, services):
    done = run("run", logger=["tensorboard", "wandb", "mlflow"], **SHORT)
    assert list((done.folder / "tensorboard").glob("events*"))
    assert yaml.safe_load((done.folder / "recipe.yaml").read_text())["logger"] == ["tensorboard", "wandb", "mlflow"]
    rows = (done.folder / "metrics.csv").read_text().splitlines()[1:]
    for service in services:
        (told,) = service.opened
        assert [step for step, _ in told.metrics] == [int(row.split(",")[0]) for row in rows]
        assert {"loss", "rate", "images_per_second"} <= told.metrics[-2][1].keys() | told.metrics[-1][1].keys()
        assert any("miou" in metrics for _, metrics in told.metrics)
        assert (told.hyperparameters["model"], told.hyperparameters["steps"]) == ("ann", 2)
        assert "run" in told.names
    assert services[0].opened[0].finished == 1
    assert json.loads((done.folder / "loggers.json").read_text()) == {
        "wandb": services[0].opened[0].identity,
        "mlflow": services[1].opened[0].identity,
    }
    train(resume=done.folder, steps=3, progress=False)
    for service in services:
        first, second = service.opened
        assert second.identity == first.identity
        assert second.metrics[0][0] == 3
    assert services[1].opened[1].hyperparameters == {}  # MLflow refuses changed ones


def test_one_name_is_enough_and_tensorboard_the_default(run, services):
    alone = run("alone", logger="wandb", **SHORT | {"steps": 1})
    assert not (alone.folder / "tensorboard").exists()
    assert len(services[0].opened) == 1
    assert run("plain", **SHORT | {"steps": 1}).folder.joinpath("tensorboard").is_dir()
    assert len(services[0].opened) == 1


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_missing_package_is_said_before_anything_is_written(run, tmp_path, monkeypatch, name):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None if package == name else real(package))
    with pytest.raises(ValueError, match=f"--logger {name} .* pip install {name}") as error:
        run("run", logger=("tensorboard", name), **SHORT)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_folder_called_wandb_is_no_package(tmp_path, monkeypatch):
    if importlib.util.find_spec("wandb") is not None:
        pytest.skip("the package wandb is installed")
    (tmp_path / "wandb").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="pip install wandb"):
        loggers.check_installed(["wandb"])


def test_unknown_logger(run):
    with pytest.raises(ValueError, match="logger: 'wand' is unknown; did you mean 'wandb'"):
        run("run", logger="wand", **SHORT)


def test_service_that_refuses_is_one_line(run, tmp_path, services, monkeypatch):
    def refuse(*anything: Any) -> None:
        raise RuntimeError("no\nkey")

    monkeypatch.setattr(Wandb, "log_hyperparams", refuse)
    with pytest.raises(ValueError, match=r"--logger wandb: no key: .*WANDB_MODE=offline"):
        run("run", logger="wandb", **SHORT)
    assert not (tmp_path / "run").exists()
    assert services[0].opened[0].finished == 1


def test_wandb_itself_offline(run, monkeypatch):
    pytest.importorskip("wandb", reason="the package wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    folder: Path = run("run", logger="wandb", **SHORT).folder
    identity = json.loads((folder / "loggers.json").read_text())["wandb"]
    assert list((folder / "wandb").glob(f"offline-run-*-{identity}/*.wandb"))


def test_mlflow_itself(run, monkeypatch, tmp_path):
    mlflow = pytest.importorskip("mlflow", reason="the package mlflow is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'mlruns'}")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    folder: Path = run("run", logger="mlflow", **SHORT).folder
    identity = json.loads((folder / "loggers.json").read_text())["mlflow"]
    found = mlflow.MlflowClient().get_run(identity)
    assert "loss" in found.data.metrics
    assert found.data.params["model"] == "ann"
