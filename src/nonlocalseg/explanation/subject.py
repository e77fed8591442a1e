"""What pictures are drawn of: one photograph and pixel, what models make of it, its labels; opened from files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nonlocalseg.explanation.collect import Explanation, explain
from nonlocalseg.images import read_image, read_mask
from nonlocalseg.labels import Colour
from nonlocalseg.models.creation import build
from nonlocalseg.models.hub import from_pretrained
from nonlocalseg.models.segmenter import Segmenter
from nonlocalseg.runtime import pick_device


@dataclass(frozen=True, eq=False)
class Subject:
    """explanations: by the name of the model, of one image at one pixel. photograph: what the image is called.

    truth: labels [H, W], 255 where nothing is labelled. networks: those whose features are drawn, by name.
    """

    explanations: Mapping[str, Explanation]
    photograph: str
    truth: np.ndarray | None = None
    networks: Mapping[str, Segmenter] = field(default_factory=dict)

    @property
    def first(self) -> str:
        """The name of the first model."""
        return next(iter(self.explanations))

    @property
    def image(self) -> np.ndarray:
        """uint8 [H, W, 3]."""
        return self.explanations[self.first].image

    @property
    def place(self) -> str:
        """The pixel in words."""
        x, y = self.explanations[self.first].pixel
        return f"pixel x = {x}, y = {y} of {self.photograph}"

    def predictions(self) -> tuple[dict[str, np.ndarray], tuple[str, ...], tuple[Colour, ...]]:
        """int64 [H, W] by model, their classes and palette. Raises `ValueError` where the models' classes differ."""
        first = self.explanations[self.first]
        for name, found in self.explanations.items():
            if found.classes != first.classes:
                raise ValueError(
                    f"--compare: {name} has other classes than the first model; compare models of one data set"
                )
        return (
            {name: found.prediction.numpy() for name, found in self.explanations.items()},
            first.classes,
            first.palette,
        )


def open_subject(
    models: Sequence[str],
    image: str | Path,
    pixel: tuple[int, int] | None = None,
    truth: str | Path | None = None,
    backbone_weights: str | None = None,
    device: str | None = None,
) -> Subject:
    """Load the models and the photograph, and explain one pixel (x, y), by default the middle one, with each model.

    Raises ValueError and FileNotFoundError for what is not there, given twice, or does not fit.

    Args:
        models: folders of runs or saved models, or names on the hub.
        image: the photograph.
        pixel: column and row, counted from the top left.
        truth: its label image.
        backbone_weights: other weights of the first model's backbone, whose features are drawn beside the models'.
        device: cpu, cuda, cuda:1 ...; by default a GPU where there is one.
    """
    where, pixels = pick_device(device), read_image(image)
    labels = None if truth is None else read_labels(truth, pixels)
    place = pixel if pixel is not None else (pixels.shape[1] // 2, pixels.shape[0] // 2)
    networks = {name: from_pretrained(path).to(where) for name, path in short_names(models).items()}
    found = {name: explain(network, pixels, place) for name, network in networks.items()}
    if backbone_weights is not None:
        first = next(iter(networks.values()))
        networks[Path(backbone_weights).stem] = with_backbone(first, backbone_weights).to(where)
    return Subject(found, Path(image).stem, labels, networks)


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """A short name for each model: the end of its path, as long as it takes to tell them apart."""
    if len(set(paths)) < len(paths):
        raise ValueError("--compare: a model is given twice; leave one out")
    parts = [Path(path).absolute().parts for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["-".join(part[-length:]).strip("/") for part in parts]
        if len(set(names)) == len(names):
            return dict(zip(names, paths, strict=True))
    return {path: path for path in paths}


def read_labels(path: str | Path, pixels: np.ndarray) -> np.ndarray:
    """The label image [H, W] of a photograph [H, W, 3]. Raises `ValueError` for colours and for another size."""
    labels = read_mask(path)
    if labels.ndim != 2:
        raise ValueError(f"--truth: {path} holds colours; give class numbers (a grey or palette PNG)")
    if labels.shape != pixels.shape[:2]:
        sizes = [f"{shape[1]}x{shape[0]}" for shape in (labels.shape, pixels.shape)]
        raise ValueError(f"--truth: {path} is {sizes[0]} and the photograph {sizes[1]}; give its own label image")
    return labels


def with_backbone(model: Segmenter, weights: str) -> Segmenter:
    """A model built like `model`, whose backbone has the weights of a file; the rest is untrained."""
    if model.config is None:
        raise ValueError("--backbone-weights: the model was assembled by hand; build it with create_model()")
    return build(model.config, backbone_weights=weights).eval()
