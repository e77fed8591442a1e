"""`predict()`: the classes of one photograph, a file or an array, and their probabilities when asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nonlocalseg.images import channels_first, read_image
from nonlocalseg.inference.engine import STRIP_ROWS, Model, best_class, evaluating, infer
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
    _scores: Tensor = field(repr=False)  # [K, H, W], owned by this object
    _are_probabilities: bool = field(repr=False)

    @property
    def probabilities(self) -> Tensor:
        """float32 [K, H, W] on the CPU, sums to 1 over K; made of averaged logits in place on the first call."""
        if not self._are_probabilities:
            with torch.no_grad():
                for strip in self._scores.split(STRIP_ROWS, dim=1):
                    strip.copy_(strip.softmax(0))
            self._are_probabilities = True
        return self._scores.cpu()


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
    with evaluating(model):
        scores = infer(
            model,
            channels_first(array)[None],
            view,
            align_corners=bool(getattr(model, "align_corners", False)),
            device=device if device is not None else _device_of(model),
            accumulate_on=accumulate_on,
        )[0]
    return Prediction(
        mask=best_class(scores).cpu(),
        classes=tuple(getattr(model, "classes", None) or ()),
        palette=tuple(getattr(model, "palette", None) or ()),
        _scores=scores,
        _are_probabilities=view.average == "probabilities",
    )


def _device_of(model: Model) -> torch.device:
    parameters = model.parameters() if isinstance(model, nn.Module) else iter(())
    return next((parameter.device for parameter in parameters), torch.device("cpu"))
