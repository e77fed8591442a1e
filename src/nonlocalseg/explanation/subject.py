"""What pictures are drawn of: one photograph and pixel, what models make of it, its labels; opened from files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nonlocalseg.explanation.collect import Explanation, explain
from nonlocalseg.images import read_image, read_mask
from nonlocalseg.labels import Colour, LabelError, LabelMap, check_same_classes, same
from nonlocalseg.models.creation import build
from nonlocalseg.models.segmenter import Segmenter
from nonlocalseg.runtime import pick_device
from nonlocalseg.zoo.pretrained import pretrained_network


@dataclass(frozen=True, eq=False)
class Subject:
    """explanations: by the name of the model, of one image at one pixel. photograph: what the image is called.

    truth: labels [H, W], 255 where nothing is labelled. networks: those whose features are drawn, by name.
    one_basis: whether the features of all are drawn in one basis. short_side: at which the models saw the photograph,
    where that was asked for.
    """

    explanations: Mapping[str, Explanation]
    photograph: str
    truth: np.ndarray | None = None
    networks: Mapping[str, Segmenter] = field(default_factory=dict)
    one_basis: bool = True
    short_side: int | None = None

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


@dataclass(frozen=True)
class Coding:
    """How a data set stores the labels of its classes."""

    data: str
    classes: tuple[str, ...]
    label_map: LabelMap


def open_subject(
    models: Sequence[str],
    image: str | Path,
    pixel: tuple[int, int] | None = None,
    truth: str | Path | None = None,
    coding: Coding | None = None,
    backbone_weights: str | None = None,
    device: str | None = None,
    one_basis: bool = True,
    short_side: int | None = None,
) -> Subject:
    """Load the models and the photograph, and explain one pixel (x, y), by default the middle one, with each model.

    Raises ValueError and FileNotFoundError for what is not there, given twice, or does not fit.

    Args:
        models: folders of runs or saved models, or names in the zoo or on the hub.
        image: the photograph.
        pixel: column and row, counted from the top left.
        truth: its label image, as the data set stores it.
        coding: of the data set that `truth` belongs to; by default what the first model says of the data that it was
            trained with, and class indices where it says nothing.
        backbone_weights: other weights of the first model's backbone, whose features are drawn beside the models'.
        one_basis: draw the features of all models in one basis.
        short_side: see `explain`.
        device: cpu, cuda, cuda:1 ...; by default a GPU where there is one.
    """
    where, pixels = pick_device(device), read_image(image)
    place = pixel if pixel is not None else (pixels.shape[1] // 2, pixels.shape[0] // 2)
    networks = {name: pretrained_network(path).to(where) for name, path in short_names(models).items()}
    labels = None
    if truth is not None:
        network = next(iter(networks.values()))
        if coding is not None:
            check_same_classes(network.classes, coding.classes, coding.data)
        known = coding.label_map if coding is not None else own_label_map(network)
        labels = read_labels(truth, pixels, known or same(len(network.classes)))
    found = {name: explain(network, pixels, place, short_side) for name, network in networks.items()}
    if backbone_weights is not None:
        first = next(iter(networks.values()))
        networks[Path(backbone_weights).stem] = with_backbone(first, backbone_weights).to(where)
    return Subject(found, Path(image).stem, labels, networks, one_basis, short_side)


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


def own_label_map(model: Segmenter) -> LabelMap | None:
    """What stored labels mean in the data that the model was trained with, None where it does not say."""
    return None if model.config is None else model.config.label_map


def read_labels(path: str | Path, pixels: np.ndarray, label_map: LabelMap) -> np.ndarray:
    """Class indices uint8 [H, W], 255 for ignore, from the label image of a photograph [H, W, 3].

    Raises `ValueError` for values and colours that the map does not know and for another size.
    """
    try:
        labels = label_map(read_mask(path))
    except LabelError as error:
        cure = "give the label image as the data set stores it, or say with --data (and --root) whose coding it has"
        raise ValueError(f"--truth: {path}: {error}; {cure}") from None
    if labels.shape != pixels.shape[:2]:
        sizes = [f"{shape[1]}x{shape[0]}" for shape in (labels.shape, pixels.shape)]
        raise ValueError(f"--truth: {path} is {sizes[0]} and the photograph {sizes[1]}; give its own label image")
    return labels


def with_backbone(model: Segmenter, weights: str) -> Segmenter:
    """A model built like `model`, whose backbone has the weights of a file; the rest is untrained."""
    if model.config is None:
        raise ValueError("--backbone-weights: the model was assembled by hand; build it with create_model()")
    return build(model.config, backbone_weights=weights).eval()
