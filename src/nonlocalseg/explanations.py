"""What a model attends to at one pixel, its masks, its stages and its features: tensors that `drawing` makes pictures of.

Weights come from the blocks' own `attention`, in the pass that gives the prediction, from plain and folded models
alike. They say where a block looks, not why the model decides as it does. Figures: ANN Fig. 5 and supplement Fig. 2,
GALD Fig. 7-11.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nonlocalseg.blocks.aggregation import HalfResolution
from nonlocalseg.blocks.basic import resize
from nonlocalseg.blocks.distribution import LDv2
from nonlocalseg.blocks.sampling import Sampling
from nonlocalseg.images import read_image, to_tensor
from nonlocalseg.inference import best_class, evaluating
from nonlocalseg.models.heads import AtPixel
from nonlocalseg.models.segmenter import Segmenter

VOID = 255
Size = tuple[int, int]  # height, width


@dataclass(frozen=True, eq=False)
class RegionAttention:
    """The weights that one pixel gives to the anchors of a block, or to all positions where it samples none.

    weights: float32 [S]; they sum to 1 (with the default normalisation, softmax).
    boxes: float32 [S, 4], left, top, right, bottom of what each weight belongs to, in pixels of the image.
    levels: int64 [S], n for a cell of the n x n sampling, 0 for a single position.
    classes: int64 [S], the class predicted for most pixels of the box; 255 for a box in the padding.
    """

    weights: Tensor
    boxes: Tensor
    levels: Tensor
    classes: Tensor

    def top(self, count: int = 5) -> list[int]:
        """Indices of the largest weights, the largest first."""
        return self.weights.topk(min(count, len(self.weights))).indices.tolist()

    def listed(self, classes: Sequence[str], count: int = 5) -> list[tuple[int, str]]:
        """Index and description of the largest weights: level, place, weight and predicted class."""
        return [(index, self._described(index, classes)) for index in self.top(count)]

    def _described(self, index: int, classes: Sequence[str]) -> str:
        n, found = int(self.levels[index]), int(self.classes[index])
        first = int((self.levels == n).nonzero()[0])
        left, top, right, bottom = (round(side) for side in self.boxes[index].tolist())
        if n:
            place = f"{n} × {n}, row {(index - first) // n + 1}, column {(index - first) % n + 1}"
        else:
            place = f"x {left}-{right}, y {top}-{bottom}"
        name = "padding" if found == VOID else classes[found]
        return f"{100 * float(self.weights[index]):.2g} %  {name}  ({place})"


@dataclass(frozen=True, eq=False)
class LocalAttention:
    """LDv2's weights over the k x k neighbours of one pixel (GALD, Eq. 6-8, Fig. 9).

    weights: float32 [k, k], sum 1, neighbours outside the feature map included, whose key is zero.
    boxes: float32 [k, k, 4], left, top, right, bottom in pixels of the image.
    inside: bool [k, k], whether the neighbour lies in the feature map.
    """

    weights: Tensor
    boxes: Tensor
    inside: Tensor


@dataclass(frozen=True, eq=False)
class Explanation:
    """What `explain` found; every tensor is on the CPU.

    image: uint8 [H, W, 3]. pixel: x, y. prediction: int64 [H, W].
    attention: by block: "context" (APNB, NB), "fusion4", ... (AFNB and FNB, a low stage each), "aggregate" (GALD's).
    local: LDv2's, None without it. mask: LDv1's M, float32 [C, h, w] over the whole image, None without it.
    stages: predictions int64 [H, W] of the linear heads behind the stages, empty for a model without them.
    """

    image: np.ndarray
    pixel: tuple[int, int]
    prediction: Tensor
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    attention: Mapping[str, RegionAttention]
    local: LocalAttention | None
    mask: Tensor | None
    stages: Mapping[str, Tensor]


def explain(model: Segmenter, image: str | Path | np.ndarray, pixel: tuple[int, int]) -> Explanation:
    """What `model`, plain or folded, attends to at `pixel` (x from the left, y from the top) of a file or RGB array.

    One pass in evaluation mode over the whole image; never an N x N matrix. Raises `ValueError` for a pixel outside
    the image and for an image that cannot be read.
    """
    array = _array(image)
    height, width = array.shape[:2]
    x, y = pixel
    if not (0 <= x < width and 0 <= y < height):
        raise ValueError(f"pixel: {x} {y} is outside the image; x runs from 0 to {width - 1}, y from 0 to {height - 1}")
    images = to_tensor(array)[None].to(model.mean.device)
    padded = model.backbone.pad(images)
    collected = AtPixel((x, y), (padded.shape[2], padded.shape[3]))
    with evaluating(model), torch.no_grad():
        features = model.features(images)
        scores: dict[str, Tensor] = {}
        with_stages = getattr(model.head, "stage_heads", None) is not None
        logits = model.head(features, collected, scores) if with_stages else model.head(features, collected)
        prediction, *masks = (
            _mask(x, collected.size, (height, width), model.align_corners) for x in (logits, *scores.values())
        )
    attention = {
        name: _region_attention(model.head, name, weights, features, collected.size, prediction)
        for name, weights in collected.items()
        if name in ("context", "aggregate") or name.startswith("fusion")
    }
    local = _local_attention(model.head, collected) if "distribute" in collected else None
    mask = _cropped(collected["mask"][0], collected.size, (height, width)) if "mask" in collected else None
    return Explanation(
        array,
        (x, y),
        prediction,
        model.classes,
        model.palette,
        attention,
        local,
        mask,
        dict(zip(scores, masks, strict=True)),
    )


def feature_components(
    models: Mapping[str, Segmenter], image: str | Path | np.ndarray, stages: Sequence[int] | None = None
) -> FeatureComponents:
    """The three principal components of the backbones' features at each stage (ANN, supplement Fig. 2).

    Models whose stage has the same number of channels share one basis, mean and scale, so that equal colours mean
    equal features; otherwise each has its own. `stages` are by default all that every model has. Raises `ValueError`
    for a stage that a model lacks.
    """
    array = _array(image)
    common = sorted(set.intersection(*(set(model.backbone.channels) for model in models.values())))
    for stage in stages or ():
        if stage not in common:
            raise ValueError(f"stages: stage {stage} is missing in one of the models; common are {common}")
    chosen = list(stages) if stages else common
    found: dict[str, dict[int, Tensor]] = {}
    for name, model in models.items():
        images = to_tensor(array)[None].to(model.mean.device)
        with evaluating(model), torch.no_grad():
            padded = model.backbone.pad(images).shape[-2:]
            maps = model.features(images)
        size = (padded[0], padded[1])
        found[name] = {stage: _cropped(maps[stage][0], size, array.shape[:2]) for stage in chosen}
    components: dict[str, dict[int, Tensor]] = {name: {} for name in models}
    shares: dict[str, dict[int, list[float]]] = {name: {} for name in models}
    shared = all(len({found[name][stage].shape[0] for name in models}) == 1 for stage in chosen)
    for stage in chosen:
        for group in [list(models)] if shared else [[name] for name in models]:
            parts, variances = principal_components([found[name][stage] for name in group])
            for name, part, variance in zip(group, parts, variances, strict=True):
                components[name][stage], shares[name][stage] = part, variance
    return FeatureComponents(components, shares, shared and len(models) > 1)


@dataclass(frozen=True, eq=False)
class FeatureComponents:
    """By model and stage: `components` float32 [3, h, w] in [0, 1] and their `shares` of that map's variance.

    shared: whether the models' components are those of one common basis.
    """

    components: Mapping[str, Mapping[int, Tensor]]
    shares: Mapping[str, Mapping[int, Sequence[float]]]
    shared: bool


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


def _array(image: str | Path | np.ndarray) -> np.ndarray:
    array = read_image(image) if isinstance(image, (str, Path)) else np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(f"image: {array.dtype} {list(array.shape)}; give a path or an RGB array uint8 [H, W, 3]")
    return array


def _mask(logits: Tensor, padded: Size, size: Size, align_corners: bool) -> Tensor:
    """Scores [1, K, h, w] of the padded image -> the best class of every pixel, int64 [H, W]."""
    scores = resize(logits, padded, align_corners)[0, :, : size[0], : size[1]]
    return best_class(scores).cpu()


def _cropped(maps: Tensor, padded: Size, size: Sequence[int]) -> Tensor:
    """A map [C, h, w] of the padded image without the cells that lie in the padding alone, float32 on the CPU."""
    height, width = (
        -(-maps.shape[axis + 1] * size[axis] // padded[axis]) if size[axis] < padded[axis] else maps.shape[axis + 1]
        for axis in (0, 1)
    )
    return maps[:, :height, :width].float().cpu().clone()


def _region_attention(
    head: nn.Module, name: str, weights: Tensor, features: Mapping[int, Tensor], padded: Size, prediction: Tensor
) -> RegionAttention:
    """`weights` [1, 1, S] of the block called `name`, with the regions that they belong to."""
    part = getattr(head, "fusion" if name.startswith("fusion") else name)
    low = features[int(name.removeprefix("fusion"))] if name.startswith("fusion") else features[5]
    height, width = low.shape[-2:]
    if isinstance(part, HalfResolution):
        height, width = part.halved(height, width)
    sampling = next((module for module in part.modules() if isinstance(module, Sampling)), None)
    if sampling is not None:
        cells = sampling.cells(height, width)
        levels = torch.cat([torch.full((n * n,), n) for n in sampling.sizes])
    else:
        rows, columns = torch.arange(height).repeat_interleave(width), torch.arange(width).repeat(height)
        cells = torch.stack([rows, columns, rows + 1, columns + 1], dim=1)
        levels = torch.zeros(len(cells), dtype=torch.int64)
    boxes = _boxes(cells, (height, width), padded)
    limit = torch.tensor([prediction.shape[1], prediction.shape[0]] * 2, dtype=torch.float32)
    boxes = torch.minimum(boxes, limit)
    return RegionAttention(weights[0, 0].float().cpu().clone(), boxes, levels, _majorities(boxes, prediction))


def _local_attention(head: nn.Module, collected: AtPixel) -> LocalAttention:
    block = head.distribute
    assert isinstance(block, LDv2)
    weights = collected["distribute"]  # [1, k k, h, w]
    height, width = weights.shape[-2:]
    row, column = collected.cell(height, width)
    k = block.kernel_size
    offsets = (torch.arange(k) - k // 2) * block.dilation
    rows, columns = torch.meshgrid(row + offsets, column + offsets, indexing="ij")
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    cells = torch.stack([rows, columns, rows + 1, columns + 1], dim=-1)
    boxes = _boxes(cells, (height, width), collected.size)
    return LocalAttention(weights[0, :, row, column].float().cpu().reshape(k, k).clone(), boxes, inside)


def _boxes(cells: Tensor, size: Size, padded: Size) -> Tensor:
    """Top, left, bottom, right [..., 4] in a map of `size` -> left, top, right, bottom in pixels."""
    scale = torch.tensor([padded[1] / size[1], padded[0] / size[0]] * 2)
    return cells[..., [1, 0, 3, 2]] * scale


def _majorities(boxes: Tensor, prediction: Tensor) -> Tensor:
    """The commonest class in each box [S, 4] of a prediction [H, W]: int64 [S], 255 for an empty box."""
    mask = prediction.numpy()
    found = []
    for left, top, right, bottom in boxes.round().long().tolist():
        part = mask[top:bottom, left:right]
        found.append(int(np.bincount(part.ravel()).argmax()) if part.size else VOID)
    return torch.tensor(found)
