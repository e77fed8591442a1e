"""Where a run's curves go beside metrics.csv: TensorBoard, Weights & Biases and MLflow, by Lightning's own loggers."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from pydantic import TypeAdapter, ValidationError

from nonlocalseg.files import write_text
from nonlocalseg.runtime import training_rank
from nonlocalseg.training.folder import RunFolder
from nonlocalseg.training.plan import LoggerName, Plan
from nonlocalseg.values import plain

PROJECT = "nonlocalseg"
IDENTITIES = "loggers.json"
"""Beside metrics.csv: the ids under which the services know the run, so that a resumed one goes on there."""
CURES = {
    "wandb": "run `wandb login`, or set WANDB_MODE=offline",
    "mlflow": "set MLFLOW_TRACKING_URI to a server that answers; without one, the whole of mlflow must be installed",
}


def check_installed(names: Iterable[str]) -> None:
    """ValueError that names the package, and how to install it, for the first logger that cannot work here."""
    for name in names:
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:  # without origin it is a mere folder, such as W&B's own ./wandb
            raise ValueError(f"--logger {name} needs the package {name}: pip install {name}")


@contextmanager
def logging_to(plan: Plan, index: int, run: RunFolder) -> Iterator[list[Logger]]:
    """The loggers of phase `index`, in the first process alone; W&B and MLflow are told its options as well.

    The services' own environment variables apply: WANDB_MODE, WANDB_PROJECT, MLFLOW_TRACKING_URI and
    MLFLOW_EXPERIMENT_NAME; without a tracking URI, MLflow writes to mlflow.db in the phase's folder. Raises ValueError
    where a service cannot be reached or wants a login.
    """
    loggers: list[Logger] = []
    if training_rank() > 0:
        yield loggers
        return
    folder = run.phase(index)
    # as its folder, with the number of the phase where there are several
    run_name = "-".join(folder.absolute().parts[-2 if run.several else -1 :])
    known = _identities(folder)
    try:
        for name in plan.logger:
            with _one_line(name):
                loggers.append(_open(name, folder, run_name, known.get(name)))
                if name != "tensorboard":
                    options = plain(plan) | plain(plan.phases[index])
                    options.pop("phases")
                    _tell(name, loggers[-1], options, again=name in known)
        opened = zip(plan.logger, loggers, strict=True)
        remembered = {name: str(logger.version) for name, logger in opened if name != "tensorboard"}
        if remembered:
            write_text(folder / IDENTITIES, json.dumps(remembered, indent=1) + "\n")
        yield loggers
    finally:
        for logger in loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.finish()  # the next phase is a run of its own


def _open(name: str, folder: Path, run_name: str, identity: str | None) -> Logger:
    if name == "wandb":
        project = os.environ.get("WANDB_PROJECT", PROJECT)
        folder.mkdir(parents=True, exist_ok=True)
        return WandbLogger(run_name, save_dir=folder, project=project, id=identity or secrets.token_hex(4))
    if name == "mlflow":
        return MLFlowLogger(
            os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT),
            run_name,
            tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.absolute() / 'mlflow.db'}",
            run_id=identity,
        )
    return TensorBoardLogger(folder, name="tensorboard", version="")


def _tell(name: str, logger: Logger, options: Mapping[str, object], again: bool) -> None:
    """Begin the run at the service, or go on with it, in the first process."""
    if name == "mlflow" and again:
        _ = logger.version  # asks for the run; MLflow refuses options that have changed
    else:
        logger.log_hyperparams(dict(options))


@contextmanager
def _one_line(name: str) -> Iterator[None]:
    """What a service raises, of whatever kind, as a ValueError with the cure."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        cure = CURES.get(name)
        raise ValueError(f"--logger {name}: {reason[:300]}{f': {cure}' if cure else ''}") from error


def _identities(folder: Path) -> Mapping[LoggerName, str]:
    path = folder / IDENTITIES
    if not path.is_file():
        return {}
    try:
        return TypeAdapter(dict[LoggerName, str]).validate_json(path.read_bytes())
    except ValidationError:
        raise ValueError(f"{path} is damaged: remove it, and the services begin a new run") from None
