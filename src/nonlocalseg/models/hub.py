"""Saved models by folder or by name on the Hugging Face hub: loaded, with other classes if need be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from nonlocalseg.labels import LabelMap, Palette, default_palette
from nonlocalseg.models.config import ModelConfig
from nonlocalseg.models.creation import build
from nonlocalseg.models.folding import fold_in_place
from nonlocalseg.models.hub_client import fetch_model
from nonlocalseg.models.segmenter import Segmenter
from nonlocalseg.models.storage import BEST, CONFIG, LAST, WEIGHTS, read_config, read_own_weights
from nonlocalseg.values import changed

HUB = "hf:"
"""Before a name, it says that it is one on the hub and no folder."""


def load_saved(source: str | Path, revision: str | None = None) -> Segmenter:
    """The model saved in a folder (of a model, or of a run), or on the hub as "hf:owner/name" ("owner/name" does
    where no folder is called owner); in evaluation mode. revision: a branch, tag or commit on the hub, which
    "hf:owner/name@revision" names as well.

    Raises `FileNotFoundError` where there is no model, `ConnectionError` where the hub cannot be reached and its cache
    does not have it, `ValueError` for a config or weights that do not fit, and for the revision of a folder.
    """
    folder = _folder(source, revision)
    config = read_config(folder)
    state = read_own_weights(folder)
    check_before_building(config, state, folder / WEIGHTS)
    model = build(config)
    if config.folded:
        fold_in_place(model.eval())
    load_weights(model, state, folder / WEIGHTS)
    return model.eval()


def with_classes(
    model: Segmenter, classes: Sequence[str], palette: Palette | None = None, label_map: LabelMap | None = None
) -> Segmenter:
    """A model for other classes: the classifiers are made anew, every other weight is that of `model`."""
    if model.config is None:
        raise ValueError("this Segmenter was assembled by hand and has no config: build it with create_model()")
    colours = default_palette(len(classes)) if palette is None else palette
    drawn = [tuple(colour) for colour in colours]
    config = changed(model.config, {"classes": tuple(classes), "palette": drawn, "label_map": label_map})
    renewed = build(config)
    if config.folded:
        fold_in_place(renewed.eval())
    load_weights(renewed, model.state_dict(), "the model", fresh_classifiers=True)
    return renewed.eval()


def check_before_building(config: ModelConfig, state: Mapping[str, Tensor], source: object) -> None:
    """ValueError where `state` does not fit `config`, found before the network takes memory."""
    try:
        with torch.device("meta"):
            model = build(config)
    except NotImplementedError:  # some networks compute with their weights as they are made
        return
    except (RuntimeError, TypeError, OverflowError) as error:  # sizes beyond any memory
        raise ValueError(f"{source} does not fit its config ({str(error).splitlines()[0]})") from None
    if not config.folded:
        _fitting(model, state, source, False)
        return
    # What folding leaves shows only once a network has run; it is never more than there was.
    wanted, found = (sum(item.numel() for item in part.values()) for part in (model.state_dict(), state))
    if wanted > 2 * found + 10_000_000:
        raise ValueError(f"{source} does not fit its config ({wanted} numbers instead of {found})")


def load_weights(model: Segmenter, state: dict[str, Tensor], source: object, fresh_classifiers: bool = False) -> None:
    """Load `state` strictly; with `fresh_classifiers` the classifiers keep their new values. `source` names the file."""
    model.load_state_dict(_fitting(model, state, source, fresh_classifiers))


def _fitting(
    model: Segmenter, state: Mapping[str, Tensor], source: object, fresh_classifiers: bool
) -> Mapping[str, Tensor]:
    """What `model` is to load; ValueError where it does not fit."""
    expected = model.state_dict()
    if fresh_classifiers:
        own = {name: item for name, item in expected.items() if name.startswith(model.classifiers)}
        state = {name: item for name, item in state.items() if not name.startswith(model.classifiers)} | own
    missing, extra = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    wrong = [name for name in sorted(expected.keys() & state.keys()) if expected[name].shape != state[name].shape]
    if missing or extra or wrong:
        shapes = [f"{name} {list(state[name].shape)} instead of {list(expected[name].shape)}" for name in wrong]
        parts = [("missing", missing), ("unknown", extra), ("wrong shape", shapes)]
        reasons = "; ".join(f"{what}: {', '.join(names[:3])}" for what, names in parts if names)
        raise ValueError(f"{source} does not fit its config ({reasons})")
    return state


def _folder(source: str | Path, revision: str | None) -> Path:
    if str(source).startswith(HUB):
        return fetch_model(str(source).removeprefix(HUB), revision)
    path = Path(source)
    for folder in (path, path / BEST, path / LAST):  # until its first validation a run has no best model
        if (folder / CONFIG).is_file():
            if not (folder / WEIGHTS).is_file():
                raise FileNotFoundError(f"{folder / WEIGHTS} is missing beside {CONFIG}: copy the whole model folder")
            if revision is not None:
                raise ValueError(f"revision: {path} is a folder, which has no revisions; put {HUB} before a hub's name")
            return folder
    if path.exists() or len(path.parts) != 2 or str(source).startswith((".", "/", "~")) or path.parent.exists():
        raise FileNotFoundError(
            f"{source} holds no model: expected {CONFIG} and {WEIGHTS} there or in its {BEST}/ folder"
        )
    return fetch_model(str(source), revision)
