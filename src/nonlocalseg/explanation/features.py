"""The features of backbones as three principal components, which become colours (ANN, supplement Fig. 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nonlocalseg.explanation.collect import pixels_of, without_padding
from nonlocalseg.images import to_tensor
from nonlocalseg.inference.borrowed import evaluated
from nonlocalseg.models.segmenter import Segmenter


@dataclass(frozen=True, eq=False)
class FeatureComponents:
    """By model and stage: `components` float32 [3, h, w] in [0, 1] and their `shares` of that map's variance.

    shared: whether the models' components are those of one common basis.
    """

    components: Mapping[str, Mapping[int, Tensor]]
    shares: Mapping[str, Mapping[int, Sequence[float]]]
    shared: bool


def feature_components(
    models: Mapping[str, Segmenter], image: str | Path | np.ndarray, stages: Sequence[int] | None = None
) -> FeatureComponents:
    """The three principal components of the backbones' features at each stage.

    Models whose stage has the same number of channels share one basis, mean and scale, so that equal colours mean
    equal features; otherwise each has its own. `stages` are by default all that every model has. Raises `ValueError`
    for a stage that a model lacks.
    """
    array = pixels_of(image)
    common = sorted(set.intersection(*(set(model.backbone.channels) for model in models.values())))
    for stage in stages or ():
        if stage not in common:
            raise ValueError(f"stages: stage {stage} is missing in one of the models; common are {common}")
    chosen = list(stages) if stages else common
    found = {name: _features(model, array, chosen) for name, model in models.items()}
    components: dict[str, dict[int, Tensor]] = {name: {} for name in models}
    shares: dict[str, dict[int, list[float]]] = {name: {} for name in models}
    shared = all(len({found[name][stage].shape[0] for name in models}) == 1 for stage in chosen)
    for stage in chosen:
        for group in [list(models)] if shared else [[name] for name in models]:
            parts, variances = principal_components([found[name][stage] for name in group])
            for name, part, variance in zip(group, parts, variances, strict=True):
                components[name][stage], shares[name][stage] = part, variance
    return FeatureComponents(components, shares, shared and len(models) > 1)


def principal_components(maps: Sequence[Tensor]) -> tuple[list[Tensor], list[list[float]]]:
    """Maps [C, h, w] -> their first three components [3, h, w] in one basis, and each map's shares of its variance.

    Every map counts the same, whatever its size. Components are scaled so that two standard deviations below and above
    the mean of all maps become 0 and 1; a component's largest channel weight is positive, so that signs are settled.
    """
    points = [x.flatten(1).double() for x in maps]  # [C, N]
    mean = torch.stack([x.mean(1) for x in points]).mean(0)
    centred = [x - mean[:, None] for x in points]
    covariance = torch.stack([x @ x.T / x.shape[1] for x in centred]).mean(0)
    values, vectors = torch.linalg.eigh(covariance)
    basis, values = vectors[:, -3:].flip(1), values[-3:].flip(0).clamp_min(0)  # [C, 3]
    largest = basis.abs().argmax(0, keepdim=True)
    basis = basis * basis.gather(0, largest).sign()
    spread = values.sqrt().clamp_min(1e-12)[:, None]
    parts, shares = [], []
    for x, part in zip(centred, maps, strict=True):
        projected = basis.T @ x  # [3, N]
        scaled = (projected / (4 * spread) + 0.5).clamp(0, 1)
        scaled = nn.functional.pad(scaled, (0, 0, 0, 3 - len(scaled)), value=0.5)
        parts.append(scaled.unflatten(1, part.shape[-2:]).float())
        total = (x - x.mean(1, keepdim=True)).square().sum().clamp_min(1e-12)
        own = (projected - projected.mean(1, keepdim=True)).square().sum(1) / total
        shares.append(own.tolist())
    return parts, shares


def _features(model: Segmenter, array: np.ndarray, stages: Sequence[int]) -> dict[int, Tensor]:
    """The maps [C, h, w] of the stages, without padding."""
    height, width = array.shape[:2]
    with torch.no_grad():
        maps = evaluated(model).features(to_tensor(array)[None].to(model.mean.device))
    padded = model.backbone.padded_size(height, width)
    return {stage: without_padding(maps[stage][0], padded, (height, width)) for stage in stages}
