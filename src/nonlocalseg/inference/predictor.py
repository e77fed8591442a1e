"""`predict()`: the classes of one photograph, a file or an array, and their probabilities when asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nonlocalseg.images import channels_first, read_image
from nonlocalseg.inference.best import STRIP_ROWS
from nonlocalseg.inference.engine import Model, evaluating, look
from nonlocalseg.labels import Colour
from nonlocalseg.values import changed
from nonlocalseg.view import WHOLE, View


@dataclass
class Prediction:
    """What a model says of one photograph.

    mask: int64 [H, W], the best class of each pixel, at the photograph's own size, on the CPU.
    classes, palette: the model's class names and colours; empty for a callable that has none.
    """

    mask: Tensor
    classes: tuple[str, ...]
    palette: tuple[Colour, ...]
    _scores: Callable[[], Tensor] = field(repr=False)  # -> [K, H, W]

    @cached_property
    def probabilities(self) -> Tensor:
        """float32 [K, H, W] on the CPU, sums to 1 over K; made on the first call, of logits where those were averaged.
        For a large photograph in windows the model runs once more."""
        return self._scores()


def predict(
    model: Model,
    image: str | Path | np.ndarray,
    view: View = WHOLE,
    *,
    device: torch.device | str | None = None,
    accumulate_on: torch.device | str | None = None,
    **changes: object,
) -> Prediction:
    """The classes of one photograph, a file or an RGB array uint8 [H, W, 3].

    The other arguments are those of `infer`; `device` is by default that of the model's parameters. The model runs in
    evaluation mode and is left in the mode it came in. Raises ValueError for an image that cannot be read.
    """
    view = changed(view, changes).economical
    array = read_image(image) if isinstance(image, (str, Path)) else image
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(f"image: {array.dtype} {list(array.shape)}; give a path or an RGB array uint8 [H, W, 3]")
    seen = look(
        model,
        channels_first(array)[None],
        view,
        align_corners=bool(getattr(model, "align_corners", False)),
        device=device if device is not None else _device_of(model),
        accumulate_on=accumulate_on,
    )

    def probabilities() -> Tensor:
        with evaluating(model), torch.no_grad():
            scores = seen.scores()[0]
            if view.average == "logits":
                for strip in scores.split(STRIP_ROWS, dim=1):
                    strip.copy_(strip.softmax(0))
        return scores.cpu()

    with evaluating(model), torch.no_grad():
        mask = seen.best()[0].cpu()
    return Prediction(
        mask=mask,
        classes=tuple(getattr(model, "classes", None) or ()),
        palette=tuple(getattr(model, "palette", None) or ()),
        _scores=probabilities,
    )


def _device_of(model: Model) -> torch.device:
    parameters = model.parameters() if isinstance(model, nn.Module) else iter(())
    return next((parameter.device for parameter in parameters), torch.device("cpu"))
