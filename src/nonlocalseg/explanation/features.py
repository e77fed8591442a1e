"""The features of backbones as three principal components, which become colours (ANN, supplement Fig. 2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nonlocalseg.explanation.collect import pixels_of, seen_by, without_padding
from nonlocalseg.inference.borrowed import evaluated
from nonlocalseg.models.segmenter import Segmenter

POINTS = 4096  # positions treated at once in float64


@dataclass(frozen=True, eq=False)
class FeatureComponents:
    """By model and stage: `components` float32 [3, h, w] in [0, 1] and their `shares` of that map's variance.

    shared: whether the models' components are those of one common basis.
    """

    components: Mapping[str, Mapping[int, Tensor]]
    shares: Mapping[str, Mapping[int, Sequence[float]]]
    shared: bool


def feature_components(
    models: Mapping[str, Segmenter],
    image: str | Path | np.ndarray,
    stages: Sequence[int] | None = None,
    *,
    shared: bool = True,
    short_side: int | None = None,
) -> FeatureComponents:
    """The three principal components of the backbones' features at each stage.

    Models whose stage has the same number of channels share one basis, so that a colour stands for the same direction
    in each; every model is seen around its own mean and in units of its own spread. With `shared` off, or of different
    channels, each has its own basis. `stages` are by default all that every model has; the image is that of `seen_by`.
    Raises `ValueError` for a stage that a model lacks.
    """
    array = pixels_of(image)
    common = sorted(set.intersection(*(set(model.backbone.channels) for model in models.values())))
    for stage in stages or ():
        if stage not in common:
            raise ValueError(f"stages: stage {stage} is missing in one of the models; common are {common}")
    chosen = list(stages) if stages else common
    found = {name: _features(model, array, chosen, short_side) for name, model in models.items()}
    components: dict[str, dict[int, Tensor]] = {name: {} for name in models}
    shares: dict[str, dict[int, list[float]]] = {name: {} for name in models}
    one_basis = shared and all(len({found[name][stage].shape[0] for name in models}) == 1 for stage in chosen)
    for stage in chosen:
        for group in [list(models)] if one_basis else [[name] for name in models]:
            parts, variances = principal_components([found[name][stage] for name in group])
            for name, part, variance in zip(group, parts, variances, strict=True):
                components[name][stage], shares[name][stage] = part, variance
    return FeatureComponents(components, shares, one_basis and len(models) > 1)


def principal_components(maps: Sequence[Tensor]) -> tuple[list[Tensor], list[list[float]]]:
    """Maps [C, h, w] -> their first three components [3, h, w] in one basis, and each map's shares of its variance.

    The basis is that of the mean of the maps' covariances, each around its map's own mean: every map counts the same,
    whatever its size. Two of a map's own standard deviations below and above its mean become 0 and 1. A component's
    largest channel weight is positive, so that signs are settled.
    """
    points = [x.flatten(1) for x in maps]  # [C, N]
    means = [x.mean(1, dtype=torch.float64) for x in points]
    covariances = [_covariance(x, mean) for x, mean in zip(points, means, strict=True)]
    _, vectors = torch.linalg.eigh(torch.stack(covariances).mean(0))
    basis = vectors[:, -3:].flip(1)  # [C, 3]
    largest = basis.abs().argmax(0, keepdim=True)
    basis = basis * basis.gather(0, largest).sign()
    parts, shares = [], []
    for x, mean, covariance, part in zip(points, means, covariances, maps, strict=True):
        projected = torch.cat([basis.T @ centred for centred in _centred(x, mean)], dim=1)  # [3, N]
        variances = projected.square().mean(1)
        scaled = (projected / (4 * variances.sqrt().clamp_min(1e-12)[:, None]) + 0.5).clamp(0, 1)
        scaled = nn.functional.pad(scaled, (0, 0, 0, 3 - len(scaled)), value=0.5)
        parts.append(scaled.unflatten(1, part.shape[-2:]).float())
        shares.append((variances / covariance.trace().clamp_min(1e-12)).tolist())
    return parts, shares


def _covariance(points: Tensor, mean: Tensor) -> Tensor:
    """[C, N] and their mean [C] -> float64 [C, C]."""
    total = torch.zeros(len(points), len(points), dtype=torch.float64)
    for centred in _centred(points, mean):
        total += centred @ centred.T
    return total / points.shape[1]


def _centred(points: Tensor, mean: Tensor) -> Iterator[Tensor]:
    """[C, N] without their mean, some of them at a time: in float64 all of them would be twice the features' size."""
    for part in points.split(POINTS, dim=1):
        yield part.double() - mean[:, None]


def _features(model: Segmenter, array: np.ndarray, stages: Sequence[int], short_side: int | None) -> dict[int, Tensor]:
    """The maps [C, h, w] of the stages, without padding."""
    images = seen_by(model, array, short_side)
    seen = images.shape[2], images.shape[3]
    with torch.no_grad():
        maps = evaluated(model).features(images)
    padded = model.backbone.padded_size(*seen)
    return {stage: without_padding(maps[stage][0], padded, seen) for stage in stages}
