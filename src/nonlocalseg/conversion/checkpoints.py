"""convert(): a checkpoint of mmsegmentation, or of the official ANN and GALD, as a model of ours."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from nonlocalseg.choices import pick
from nonlocalseg.conversion import official
from nonlocalseg.conversion.config_text import parse
from nonlocalseg.conversion.described import Assumed, Described
from nonlocalseg.conversion.key_maps import Table, renamed
from nonlocalseg.conversion.mmseg_config import from_mmseg_config, guessed_config
from nonlocalseg.conversion.reading import unwrap
from nonlocalseg.labels import Palette
from nonlocalseg.models.creation import build, class_names, resolve
from nonlocalseg.models.hub import check_before_building, load_weights
from nonlocalseg.models.segmenter import Segmenter
from nonlocalseg.values import changed, is_mapping, is_row

SOURCES = ("mmseg", "ann-official", "gald-official")
_FIRST = ("conv1.0", "conv1", "conv_stem")


def convert(
    checkpoint: Mapping[str, object],
    source: str,
    classes: Sequence[str] | None = None,
    palette: Palette | None = None,
    align_corners: bool | None = None,
    config: Mapping[str, object] | None = None,
) -> Segmenter:
    """A Segmenter from another project's checkpoint: a state dict, or a dict that holds one; in evaluation mode.

    `source` is one of `SOURCES`. The network of an mmsegmentation checkpoint is built as the config in it says, or as
    `config`, of the form that `config_text.parse` reads; where there is none the shapes decide, and the warning `Assumed` says
    what was assumed. Names and colours come from the checkpoint's meta data where it has them, else from the arguments.
    `align_corners` defaults to the source's: the config's, else False; True for the official codes. Raises `ValueError`
    naming the field of the config that our networks lack, or the first keys that do not fit.
    """
    pick("source", source, SOURCES)
    state, meta = unwrap(checkpoint)
    state = {key: value for key, value in state.items() if not key.startswith(_UNUSED)}
    state = state if source == "mmseg" else official.two_dimensional(state)
    found = described(state, meta, config) if source == "mmseg" else official.described(state, source)
    if not found.options["auxiliary"]:
        state = {key: value for key, value in state.items() if not key.startswith("auxiliary_head.")}
    mapped = _mapped(state, found.table, source)
    count = mapped["head.classifier.weight"].shape[0]
    if found.num_classes not in (None, count):
        raise ValueError(f"the config has num_classes={found.num_classes}, but the weights are of {count} classes")
    if found.reversed_input:
        first = next(f"backbone.body.{name}.weight" for name in _FIRST if f"backbone.body.{name}.weight" in mapped)
        mapped[first] = mapped[first].flip(1)
    options: dict[str, Any] = found.options | ({} if align_corners is None else {"align_corners": align_corners})
    named = _names(meta, count)
    names = class_names(None if classes or named else count, classes or named)
    wiring = "mmseg" if source == "mmseg" else "official"
    config_of_model = resolve(found.model, found.backbone, names, palette or _colours(meta, count), wiring, options)
    resolved = changed(config_of_model, {"mean": found.mean, "std": found.std, "converted_from": source})
    mapped |= {"mean": torch.tensor(found.mean).view(1, 3, 1, 1), "std": torch.tensor(found.std).view(1, 3, 1, 1)}
    check_before_building(resolved, mapped, f"the {source} checkpoint")
    model = build(resolved)
    load_weights(model, mapped, f"the {source} checkpoint")
    for note in found.notes:
        warnings.warn(note, Assumed, stacklevel=2)
    return model.eval()


def described(
    state: Mapping[str, Tensor], meta: Mapping[str, object], config: Mapping[str, object] | None = None
) -> Described:
    """The network of an mmsegmentation checkpoint: of its config, or of the one given, or as its shapes tell."""
    text = meta.get("cfg", meta.get("config"))
    if config is None and isinstance(text, str) and text.strip():
        config = parse(text)
    elif config is None and is_mapping(text):
        config = text
    if config is not None and "model" in config:
        return from_mmseg_config(config)
    guessed, assumed = guessed_config(state)
    found = from_mmseg_config(guessed)
    note = f"the checkpoint holds no config of its network; assumed: {', '.join(assumed)}"
    return replace(found, notes=(note, *found.notes))


_UNUSED = ("backbone.fc.", "fc.", "data_preprocessor.")
"""Classifiers of the ImageNet network that some checkpoints still carry, and normalisation buffers."""


def _mapped(state: Mapping[str, Tensor], table: Table, source: str) -> dict[str, Tensor]:
    mapped, unknown = renamed(state, table)
    if unknown:
        raise ValueError(
            f"{len(unknown)} keys have no place, first: {', '.join(unknown[:3])}: is it a {source} checkpoint?"
        )
    if "head.classifier.weight" not in mapped:
        wanted = next(theirs for theirs, ours in table.items() if ours == "head.classifier")
        raise ValueError(f"the checkpoint is truncated: {wanted}.weight is missing")
    return mapped


def _names(meta: Mapping[str, object], count: int) -> list[str] | None:
    """Class names where there is one for each class."""
    found = _of_meta(meta, "classes")
    return [str(name) for name in found] if len(found) == count and all(isinstance(x, str) for x in found) else None


def _colours(meta: Mapping[str, object], count: int) -> Palette | None:
    """Colours, three numbers from 0 to 255, where there is one for each class."""
    found = [tuple(colour) if is_row(colour) else () for colour in _of_meta(meta, "palette")]
    valid = all(len(c) == 3 and all(isinstance(part, int) and 0 <= part <= 255 for part in c) for c in found)
    return found if valid and len(found) == count else None


def _of_meta(meta: Mapping[str, object], name: str) -> list[object]:
    """An entry of 1.x's meta data or 0.x's; nothing where it is no list."""
    inner = meta.get("dataset_meta")
    value = inner.get(name) if is_mapping(inner) else None
    value = value if value is not None else meta.get(name.upper(), meta.get(name))
    return list(cast(Iterable[object], value)) if isinstance(value, Iterable) and not isinstance(value, str) else []
