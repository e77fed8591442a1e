"""Models on disk: `config.json` beside `model.safetensors`, written whole and checked when read."""

from __future__ import annotations

import hashlib
import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torch import Tensor

from nonlocalseg.choices import pick
from nonlocalseg.files import writing
from nonlocalseg.models.catalog import MODELS
from nonlocalseg.models.config import FORMAT_VERSION, ModelConfig
from nonlocalseg.values import from_plain, plain

CONFIG, WEIGHTS = "config.json", "model.safetensors"
BEST, LAST = "best", "last"
"""The models in the folder of a run: of the best validation, and of the last step that was saved."""
DIGEST = "weights_sha256"
"""The entry of `config.json` from which altered weights are told."""
SAVED = "saved"
"""The entry that says when the weights were written: a copy's files have other times."""


def write_model(config: ModelConfig, state: dict[str, Tensor], folder: str | Path) -> Path:
    """Write `config.json` and `model.safetensors` to `folder`, weights first, so that a folder with a config is whole."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    folder = Path(folder)
    with writing(folder / CONFIG) as described, writing(folder / WEIGHTS) as temporary:  # the last is renamed first
        try:
            save_file({name: value.detach().cpu().contiguous() for name, value in state.items()}, temporary)
        except SafetensorError as error:
            if code := re.search(r"os error (\d+)", str(error)):
                raise OSError(int(code[1]), os.strerror(int(code[1])), str(folder / WEIGHTS)) from error
            raise
        now = datetime.now(UTC).isoformat(timespec="seconds")
        content = {"format_version": FORMAT_VERSION, DIGEST: _digest(temporary), SAVED: now, **plain(config)}
        described.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return folder


def read_config(folder: Path) -> ModelConfig:
    """The checked content of `config.json`."""
    path, content = folder / CONFIG, _read_names(folder / CONFIG)
    if DIGEST not in content:
        raise ValueError(f"{path} lacks {DIGEST!r}: it was not written by this library")
    del content[DIGEST]
    content.pop(SAVED, None)
    return config_of(content, path)


def config_of(content: dict[str, Any], path: Path) -> ModelConfig:
    """The config whose fields and `format_version` were read from the file `path`; ValueError where they do not fit."""
    for name in ("format_version", "model", "backbone", "classes", "palette", "mean", "std", "options"):
        if name not in content:
            raise ValueError(f"{path} lacks {name!r}: it was not written by this library")
    version = content.pop("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(f"{path} has format {version}, this version reads {FORMAT_VERSION}: upgrade nonlocalseg")
    model = MODELS[pick(f"model in {path}", str(content["model"]), MODELS)]
    options = from_plain(type(model.options), content.pop("options"), f"{path}: options")
    return from_plain(ModelConfig, {**content, "options": options}, path)


def saved_at(folder: Path) -> datetime | None:
    """When the model of a folder was saved, None where its config does not say it as ISO 8601."""
    try:
        return datetime.fromisoformat(str(_read_names(folder / CONFIG).get(SAVED)))
    except ValueError:
        return None


def _read_names(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}): copy the model folder again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no names and values: it was not written by this library")
    return content


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_own_weights(folder: Path) -> dict[str, Tensor]:
    """The weights beside a `config.json`; ValueError in one line where they are not those that it was written with."""
    path = folder / WEIGHTS
    if _digest(path) != _read_names(folder / CONFIG).get(DIGEST):
        raise ValueError(
            f"{path} is corrupt, or of another model than {CONFIG} beside it: copy or save the model again"
        )
    return read_weights(path)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; `ValueError` in one line where it is corrupt."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is corrupt ({error}): copy or save the model again") from error
