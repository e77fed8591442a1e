"""The whole network: normalise, backbone, head and auxiliary head, scores at the image's size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nonlocalseg.blocks.attended import Attended
from nonlocalseg.blocks.basic import resize
from nonlocalseg.heads.base import SILENT, Head, Watch
from nonlocalseg.models.backbone import Backbone
from nonlocalseg.models.config import ModelConfig
from nonlocalseg.models.storage import write_model
from nonlocalseg.view import WHOLE, View


class _ForTraining(Watch):
    """Keeps what has a loss of its own beside the scores: of classifiers that look at steps, and further outputs."""

    def __init__(self) -> None:
        self.found: dict[str, Tensor] = {}

    def scores(self, name: str, scores: Callable[[], Tensor]) -> None:
        self.found[f"stage_{name}"] = scores()

    def further(self, name: str, output: Callable[[], Tensor]) -> None:
        self.found[name] = output()


class _Everything(Watch):
    """Keeps all weights and masks."""

    def __init__(self) -> None:
        self.found: dict[str, Tensor] = {}

    def attention(self, name: str, title: str, attended: Callable[[], Attended]) -> None:
        self.found[name] = attended().weights(None)

    def mask(self, name: str, title: str, mask: Callable[[], Tensor]) -> None:
        self.found[name] = mask()


class Segmenter(nn.Module):
    """`model(images)`: RGB in [0, 1] `[B, 3, H, W]`, any H and W from 16 up -> `{"out": logits [B, K, H, W]}`.

    In training mode with an auxiliary head, "aux" has the same shape, and so has "stage_NAME" of each classifier that
    looks at a step of the head. A head may add outputs that have a loss of their own (`head.loss_weights`): scores of
    that shape, or logits [B, K] of which classes an image holds, as EncNet's "presence". It normalises with the buffers
    `mean` and `std`, which are saved with the weights, and it knows its `classes` (names) and `palette` (RGB, 0-255).
    `align_corners` is read by the head, by the resize here and by inference. `config` is what `create_model` resolved,
    so that the model can be saved; a Segmenter assembled by hand has none. Raises `ValueError` for images smaller than
    16 pixels, for a head whose stages the backbone lacks, and for a batch that batch norm cannot be trained with.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        head: Head[Any],
        auxiliary: Head[Any] | None,
        classes: tuple[str, ...],
        palette: tuple[tuple[int, int, int], ...],
        mean: tuple[float, ...] = (0.485, 0.456, 0.406),
        std: tuple[float, ...] = (0.229, 0.224, 0.225),
        align_corners: bool = False,
        config: ModelConfig | None = None,
    ) -> None:
        super().__init__()
        if len(palette) != len(classes):
            raise ValueError(f"palette: {len(palette)} colours for {len(classes)} classes; give one RGB colour a class")
        for part, name in ((head, "the head"), (auxiliary, "the auxiliary head")):
            missing = [] if part is None else [stage for stage in part.stages if stage not in backbone.channels]
            if missing:
                raise ValueError(
                    f"{name} needs stage {missing[0]}, but the backbone returns stages {sorted(backbone.channels)} only"
                )
        self.backbone, self.head, self.auxiliary = backbone, head, auxiliary
        self.classes = tuple(classes)
        self.palette = tuple((red, green, blue) for red, green, blue in palette)
        self.align_corners = align_corners
        self.config = config
        self.folded = False
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def view(self) -> View:
        """How the model sees an image unless told otherwise."""
        return WHOLE if self.config is None else self.config.view

    @property
    def classifiers(self) -> tuple[str, ...]:
        """How the names of the parameters begin that are made anew for other classes."""
        heads = {"head": self.head, "auxiliary": self.auxiliary}
        return tuple(f"{name}.{part}." for name, head in heads.items() if head for part in head.classifiers)

    def forward(self, images: Tensor, watch: Watch = SILENT) -> dict[str, Tensor]:
        """`watch` is told, in evaluation mode, what the blocks of the head do."""
        features, size = self._encode(images)
        beside = _ForTraining()
        logits = self.head(features, beside if self.training else watch)
        outputs = {"out": self._to_image(logits, images, size)}
        for name, found in beside.found.items():
            outputs[name] = self._to_image(found, images, size) if found.ndim == 4 else found
        if self.training and self.auxiliary is not None:
            outputs["aux"] = self._to_image(self.auxiliary(features), images, size)
        return outputs

    def coarse(self, images: Tensor, watch: Watch = SILENT) -> tuple[Tensor, tuple[int, int]]:
        """Scores `[B, K, h, w]` on the head's own grid, and the (padded) size that `forward` resizes them to before it
        crops them to the images'; `watch` is told what the blocks of the head do."""
        features, size = self._encode(images)
        return self.head(features, watch), size

    def features(self, images: Tensor) -> dict[int, Tensor]:
        """The backbone's stages `{stage: [B, C, h, w]}` of the images, padded as `backbone.pad` does."""
        return self._encode(images)[0]

    def attention_maps(self, images: Tensor) -> dict[str, Tensor]:
        """Weights `[B, N, S]` of every attending block and masks `[B, C, h, w]`, by name, as `forward` uses them."""
        everything = _Everything()
        self.head(self.features(images), everything)
        return everything.found

    def train(self, mode: bool = True) -> Self:
        """As any module's; raises `ValueError` for a folded model, whose norms and auxiliary head are gone."""
        if mode and self.folded:
            raise ValueError("a folded model is for evaluation only: train the model it was folded from")
        return super().train(mode)

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write `config.json` and `model.safetensors`; ValueError for a Segmenter that was assembled by hand."""
        if self.config is None:
            raise ValueError("this Segmenter was assembled by hand and cannot be saved: build it with create_model()")
        return write_model(self.config, self.state_dict(), folder)

    def normalise(self, images: Tensor) -> Tensor:
        """Images as the backbone wants them."""
        return (images - self.mean) / self.std

    def _encode(self, images: Tensor) -> tuple[dict[int, Tensor], tuple[int, int]]:
        """Backbone stages of the padded images, and the padded size."""
        height, width = images.shape[-2:]
        if images.ndim != 4 or images.shape[1] != self.mean.shape[1]:
            raise ValueError(f"images must be [B, {self.mean.shape[1]}, H, W], not {list(images.shape)}")
        if min(height, width) < 16:
            raise ValueError(f"images must be at least 16x16 pixels, not {height}x{width}")
        padded = self.backbone.pad(self.normalise(images))
        if self.training and self.backbone.has_batch_norm:
            self._check_batch(padded)
        return self.backbone(padded), (padded.shape[2], padded.shape[3])

    def _check_batch(self, images: Tensor) -> None:
        stride = max(self.backbone.strides.values())
        batch, _, height, width = images.shape
        if batch == 1 and height <= stride and width <= stride:
            raise ValueError(
                f"batch norm cannot be trained on one {height}x{width} image at stride {stride}: "
                f"use a batch of 2 or crops larger than {stride}"
            )

    def _to_image(self, logits: Tensor, images: Tensor, padded: tuple[int, int]) -> Tensor:
        logits = resize(logits, padded, self.align_corners)
        if padded == tuple(images.shape[-2:]):
            return logits
        return F.pad(logits, (0, images.shape[3] - padded[1], 0, images.shape[2] - padded[0]))
