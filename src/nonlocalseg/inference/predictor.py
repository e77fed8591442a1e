"""`predict()`: the classes of photographs, files or pictures in memory, and what can be made of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from nonlocalseg.files import writing
from nonlocalseg.images import channels_first, read_image, rgb, write_image, write_mask
from nonlocalseg.inference.best import STRIP_ROWS
from nonlocalseg.inference.borrowed import Model, evaluated, settled_view
from nonlocalseg.inference.engine import Seen, look
from nonlocalseg.inference.memory import bounded
from nonlocalseg.inference.tiled import TiledBatch
from nonlocalseg.labels import IGNORE, Colour, default_palette
from nonlocalseg.runtime import pick_device
from nonlocalseg.view import View
from nonlocalseg.zoo.pretrained import from_pretrained

Picture = str | Path | Image.Image | np.ndarray
"""A file, a picture of Pillow's, or an RGB array uint8 [H, W, 3]."""
MAKER = "nonlocalseg predict"
"""What the pictures of `Prediction.save` say of themselves, by which they are known again."""
KINDS = ("index", "colour", "overlay")
P = TypeVar("P", bound=Picture)


@dataclass(eq=False)
class Prediction:
    """What a model says of one photograph.

    mask: int64 [H, W], the best class of each pixel, at the photograph's own size, on the CPU.
    classes, palette: the model's class names and colours; empty for a callable that has none.
    image: the photograph, uint8 [H, W, 3]. name: that of its file, or "image".
    """

    mask: Tensor
    classes: tuple[str, ...]
    palette: tuple[Colour, ...]
    image: np.ndarray
    name: str
    _probabilities: Callable[[], Tensor] = field(repr=False)

    def __repr__(self) -> str:
        largest = ", ".join(f"{area.name} {100 * area.share:.1f} %" for area in self.areas()[:3])
        return f"Prediction({self.name}, {self.mask.shape[1]}x{self.mask.shape[0]}: {largest})"

    @cached_property
    def probabilities(self) -> Tensor:
        """float32 [K, H, W] on the CPU, sums to 1 over K; made on the first call, of logits where those were averaged.
        For one of a list, and for a large photograph in windows, the model runs once more."""
        return self._probabilities()

    def areas(self) -> list[Area]:
        """The classes that occur, the largest first."""
        counts = [int(count) for count in torch.bincount(self.mask.flatten())]
        present = sorted((index for index, count in enumerate(counts) if count), key=lambda index: -counts[index])
        names = dict(enumerate(self.classes))
        total = self.mask.numel()
        return [Area(names.get(k, str(k)), counts[k], counts[k] / total) for k in present]

    def overlay(self, opacity: float = 0.5, legend: bool = False) -> np.ndarray:
        """The classes' colours over the photograph, uint8 [H, W, 3] at its own size; with a `legend`, wider by that."""
        from nonlocalseg import drawing

        if not legend:
            return drawing.overlay(self.image, self.mask.numpy(), self._colours, opacity)
        names = self.classes or tuple(map(str, range(len(self._colours))))
        return drawing.overlay_with_legend(
            self.image, self.mask.numpy(), names, self._colours, opacity, title=self.name
        )

    def save(
        self, folder: str | Path, name: str | None = None, *, legend: bool = False, probabilities: bool = False
    ) -> list[Path]:
        """Write index/NAME.png (class numbers, a palette PNG), colour/NAME.png and overlay/NAME.png, and return them.

        name: by default that of the photograph's file, suffix and all. legend: beside the overlay. probabilities: write
        probabilities/NAME.npz as well, float32 [class, row, column]. Raises OSError where that cannot be written.
        """
        from nonlocalseg import drawing

        mask, colours, name = self.mask.numpy(), self._colours, name or self.name
        index, colour, overlay = (Path(folder) / kind / f"{name}.png" for kind in KINDS)
        write_mask(index, mask, colours if len(colours) <= IGNORE + 1 else None, MAKER)
        write_image(colour, drawing.colour(mask, colours), MAKER)
        write_image(overlay, self.overlay(legend=legend), MAKER)
        if not probabilities:
            return [index, colour, overlay]
        path = Path(folder) / "probabilities" / f"{name}.npz"
        with writing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, probabilities=self.probabilities.numpy(), classes=np.array(self.classes))
        return [index, colour, overlay, path]

    @property
    def _colours(self) -> tuple[Colour, ...]:
        return self.palette or default_palette(int(self.mask.max()) + 1)


@dataclass(frozen=True)
class Area:
    """What one class covers: its pixels, and their share of the photograph in [0, 1]."""

    name: str
    pixels: int
    share: float


@overload
def predict(
    model: Model | str | Path,
    image: Picture,
    view: View | None = None,
    *,
    setting: str | None = None,
    device: torch.device | str | None = None,
    accumulate_on: torch.device | str | None = None,
    **changes: object,
) -> Prediction: ...


@overload
def predict(
    model: Model | str | Path,
    image: list[P] | tuple[P, ...],
    view: View | None = None,
    *,
    setting: str | None = None,
    device: torch.device | str | None = None,
    accumulate_on: torch.device | str | None = None,
    **changes: object,
) -> list[Prediction]: ...


def predict(
    model: Model | str | Path,
    image: Picture | list[P] | tuple[P, ...],
    view: View | None = None,
    *,
    setting: str | None = None,
    device: torch.device | str | None = None,
    accumulate_on: torch.device | str | None = None,
    **changes: object,
) -> Prediction | list[Prediction]:
    """The classes of a photograph, or of each in a list of them.

    The model is not changed: one in training mode runs as a private copy in evaluation mode that shares its weights.
    Raises ValueError for an image that cannot be read, and FileNotFoundError for a missing one, or model.

    Args:
        model: a model, any callable as `infer` takes it, or what `from_pretrained` loads.
        image: a file, a picture of Pillow's, an RGB array uint8 [H, W, 3], or a list of those.
        view: how the model sees an image; by default `model.view`.
        setting: a paper's way to see images, one of `view.VIEWS`, instead of a view.
        device: by default where the model's parameters are; for a model that is loaded here, a GPU where there is one.
        accumulate_on: where the scores are kept; by default `device`.
        changes: fields of the view, put over it.
    """
    if isinstance(model, (str, Path)):
        model = from_pretrained(model).to(pick_device(device))
    seen = settled_view(model, view, setting, changes)
    lent = _Lent(evaluated(model), seen, device_of(model) if device is None else torch.device(device), accumulate_on)
    if not isinstance(image, (list, tuple)):
        return lent.predict(image, "image", keep=True)
    return [lent.predict(one, f"image-{number}", keep=False) for number, one in enumerate(image, start=1)]


@dataclass(frozen=True)
class _Lent:
    """A model in evaluation mode, how it sees images, and where."""

    model: Model
    view: View
    device: torch.device
    accumulate_on: torch.device | str | None

    def predict(self, picture: Picture, name: str, keep: bool) -> Prediction:
        """A whole image that would take more memory than is free is seen in windows, with a warning.

        keep: hold what the probabilities are made of, where that is not large, rather than run the model anew."""
        array = _pixels(picture)
        name = Path(picture).name if isinstance(picture, (str, Path)) else name
        view, note = bounded(self.view, self.model, array.shape[:2], self.device)
        view = view.economical
        if note:
            warnings.warn(f"{name}: {note}", stacklevel=4)
        seen = look(
            self.model,
            channels_first(array)[None],
            view,
            align_corners=bool(getattr(self.model, "align_corners", False)),
            device=self.device,
            accumulate_on=self.accumulate_on,
        )
        with torch.no_grad():
            mask = seen.best(keep)[0].cpu()
        return Prediction(
            mask=mask,
            classes=tuple(getattr(self.model, "classes", None) or ()),
            palette=tuple(getattr(self.model, "palette", None) or ()),
            image=array,
            name=name,
            _probabilities=lambda: self.probabilities(seen, view),
        )

    def probabilities(self, seen: Seen | TiledBatch, view: View) -> Tensor:
        """float32 [K, H, W]."""
        with torch.no_grad():
            scores = seen.scores()[0]
            for top in range(0, scores.shape[1], STRIP_ROWS) if view.average == "logits" else ():
                strip = scores[:, top : top + STRIP_ROWS]
                strip.copy_(strip.softmax(0))
        return scores.cpu()


def _pixels(picture: Picture) -> np.ndarray:
    """uint8 [H, W, 3]."""
    if isinstance(picture, (str, Path)):
        return read_image(picture)
    array = rgb(picture) if isinstance(picture, Image.Image) else picture
    known = isinstance(array, np.ndarray)  # pyright: ignore[reportUnnecessaryIsInstance]  # not of callers without types
    if not known or array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        found = f"{array.dtype} {list(array.shape)}" if hasattr(array, "dtype") else type(array).__name__
        raise ValueError(f"image: {found}; give a path, a picture of Pillow's or an RGB array uint8 [H, W, 3]")
    return array


def device_of(model: object) -> torch.device:
    """Where its parameters are; the CPU for a model without."""
    parameters = model.parameters() if isinstance(model, nn.Module) else iter(())
    return next((parameter.device for parameter in parameters), torch.device("cpu"))
