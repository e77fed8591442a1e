"""to_mmseg(): a model of ours as a checkpoint that mmsegmentation loads, with the config that builds its network."""

from __future__ import annotations

from typing import Any

from nonlocalseg.conversion.config_text import write
from nonlocalseg.conversion.key_maps import renamed_back
from nonlocalseg.conversion.mmseg_config import from_mmseg_config, meanings, to_mmseg_config
from nonlocalseg.models.config import ModelConfig
from nonlocalseg.models.creation import resolve
from nonlocalseg.models.segmenter import Segmenter

_PIPELINE = [{"type": "LoadImageFromFile"}, {"type": "PackSegInputs"}]


def to_mmseg(model: Segmenter) -> dict[str, Any]:
    """A checkpoint as mmsegmentation writes them: `{"state_dict", "meta"}`, with the config's text in meta["cfg"].

    Raises `ValueError` for a model that mmsegmentation cannot build, naming the option it lacks: what is written and
    converted back is the same model, or nothing is written.
    """
    config = model.config
    if config is None:
        raise ValueError("this Segmenter was assembled by hand and cannot be written: build it with create_model()")
    described, table = to_mmseg_config(config, model.backbone.channels)
    _check_restored(config, described)
    own = {key: value.detach() for key, value in model.state_dict().items() if key not in ("mean", "std")}
    state, extra = renamed_back(own, table)
    if extra:
        raise ValueError(f"mmsegmentation's {config.model} has no {extra[0]}")
    text = write({**described, "test_pipeline": _PIPELINE, "default_scope": "mmseg"})
    known = {"classes": list(model.classes), "palette": [list(colour) for colour in model.palette]}
    return {
        "state_dict": {key: value.clone() for key, value in state.items()},
        "meta": {"cfg": text, "dataset_meta": known},
    }


def _check_restored(config: ModelConfig, described: dict[str, object]) -> None:
    """ValueError where the config that is about to be written would not give this model back."""
    found = from_mmseg_config(described)
    again = resolve(found.model, found.backbone, config.classes, config.palette, "mmseg", found.options)
    kept, wanted = again.flat(), config.flat()
    means = {name: list(item) if isinstance(item, tuple) else item for name, item in meanings(config).items()}
    idle = config.options.idle() | config.idle_network()
    for name, value in wanted.items():
        if kept[name] != (means.get(name) if value is None else value) and name not in idle:
            raise ValueError(
                f"mmsegmentation's {config.model} has no {name}={value}, only {kept[name]}: "
                "models in the mmseg wiring can be written"
            )
