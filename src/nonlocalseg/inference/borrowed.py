"""A model that is lent for inference: run in evaluation mode without a change to it, and seen as it says itself.

Every verb and function that looks at images asks here which view counts: the model's own, unless another one is given.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from nonlocalseg.models.segmenter import Segmenter
from nonlocalseg.models.speed import SpedUp
from nonlocalseg.values import changed, names_of
from nonlocalseg.view import WHOLE, View, find_view

Borrowed = TypeVar("Borrowed")

Model = Callable[[Tensor], Tensor | Mapping[str, Tensor]]

OF_WINDOWS = ("crop", "stride", "small", "regional")
"""Fields of a view that mean nothing where images are seen whole."""
SMALLEST = 16
"""Pixels to a side that a Segmenter sees; what is smaller at a scale below 1 is padded."""


@runtime_checkable
class Coarse(Protocol):
    """A model that tells its scores on its own grid, and the size that they stand for, as `Segmenter` does."""

    def coarse(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]: ...


def smallest_side(model: Model) -> int:
    """Pixels that a side must have for the model to see it; one for a callable that says nothing."""
    return SMALLEST if isinstance(model, Coarse) else int(getattr(model, "smallest_side", 1))


def tileable(model: object) -> Segmenter:
    """The network of a model that is to be seen in tiles. ValueError for one that is no network of ours, or is in half
    precision."""
    if isinstance(model, SpedUp) and model.precision == torch.float32:
        return model.model
    if isinstance(model, SpedUp):
        raise ValueError(
            "mode stream: --fast runs this model in half precision, whose sums would not be exact: leave it out"
        )
    if not isinstance(model, Segmenter):
        raise ValueError(f"mode stream: {type(model).__name__} is no network of this library, whose layers are known")
    return model


def evaluated(model: Borrowed) -> Borrowed:
    """`model` in evaluation mode: itself where it is, else a private copy of its modules that shares all weights.

    The model is never switched, so that a training that goes on meanwhile, or another thread, finds it as it was.
    Raises ValueError for a model in training mode that cannot be copied.
    """
    if not isinstance(model, nn.Module) or not any(module.training for module in model.modules()):
        return model
    tensors = itertools.chain(model.parameters(), model.buffers())
    try:
        return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors}).eval()
    except (TypeError, RuntimeError, AttributeError) as error:
        raise ValueError(f"the model is in training mode and cannot be copied ({error}): call model.eval()") from None


def settled_view(model: object, view: View | None, setting: str | None, changes: Mapping[str, object]) -> View:
    """How `model` sees images: its own view, unless `view` or the named `setting` is given, with `changes` over it.

    A change of mode takes the windows, or regions, of the view with it. Raises ValueError for options that make no sense, and
    for a `setting` beside other options.
    """
    if setting is not None:
        named = find_view(setting)
        others = [name for name in names_of(View) if view is not None and getattr(view, name) != getattr(WHOLE, name)]
        if name := next(iter((*changes, *others)), None):
            raise ValueError(f"--setting {setting} fixes --{name.replace('_', '-')}: give one of the two")
        return named
    start = view or getattr(model, "view", WHOLE)
    moved = changes.get("mode", start.mode) not in ("slide", start.mode)
    windowless = {name: getattr(WHOLE, name) for name in OF_WINDOWS} if moved else {}
    return changed(start, {**windowless, **changes})


def fingerprint(network: nn.Module) -> str:
    """A number that stands for the weights of a model."""
    found = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()[:16]
