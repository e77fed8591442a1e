"""Where a run's curves go beside metrics.csv: TensorBoard, Weights & Biases and MLflow, by Lightning's own loggers."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from nonlocalseg.files import write_text

LoggerName = Literal["tensorboard", "wandb", "mlflow"]
LOGGERS: tuple[str, ...] = get_args(LoggerName)
"""Each is called as the package that it needs."""
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
def logging_to(names: Sequence[str], folder: Path, run_name: str, options: Mapping[str, Any]) -> Iterator[list[Logger]]:
    """The loggers of one phase, which writes to `folder`; W&B and MLflow are told the `options` as well.

    The services' own environment variables apply: WANDB_MODE, WANDB_PROJECT, MLFLOW_TRACKING_URI and
    MLFLOW_EXPERIMENT_NAME; without a tracking URI, MLflow writes to mlflow.db in the folder. Raises ValueError where a
    service cannot be reached or wants a login.
    """
    known = _identities(folder)
    loggers: list[Logger] = []
    try:
        for name in names:
            with _one_line(name):
                loggers.append(_open(name, folder, run_name, known.get(name)))
                if name != "tensorboard":
                    _tell(name, loggers[-1], options, again=name in known)
        remembered = {name: str(x.version) for name, x in zip(names, loggers, strict=True) if name != "tensorboard"}
        if remembered and rank_zero_only.rank == 0:
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


def _tell(name: str, logger: Logger, options: Mapping[str, Any], again: bool) -> None:
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


def _identities(folder: Path) -> dict[str, str]:
    path = folder / IDENTITIES
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
