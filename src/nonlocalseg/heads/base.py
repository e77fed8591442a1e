"""What every head is: its options, the stages it reads, its classifiers, and whom it tells what its blocks do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import ClassVar, Generic, Self, TypeVar

from torch import Tensor, nn

from nonlocalseg.blocks.attended import Attended
from nonlocalseg.blocks.tiles import WHOLE, Tile, Tiles
from nonlocalseg.values import value

Features = Mapping[int, Tensor]
"""Backbone features `[B, C, h, w]` by stage; 5 is the last."""


@value
class HeadOptions:
    """The options of a head; every family adds its own fields."""

    align_corners: bool = False
    "Corners are aligned in every bilinear resize of the model, and in inference."

    def idle(self) -> frozenset[str]:
        """Names of the fields that have no effect with the others as they are."""
        return frozenset()


class Watch:
    """Whom a head tells what its blocks do. This one does not listen; others override what they want to hear.

    `name` is short, for files; `title` is for people. What is told is a function, so that silence costs nothing.
    """

    def attention(self, name: str, title: str, attended: Callable[[], Attended]) -> None:
        """Weights of a block, with the cells that they belong to."""

    def mask(self, name: str, title: str, mask: Callable[[], Tensor]) -> None:
        """A mask `[B, C, h, w]` in [0, 1] over the whole image."""

    def scores(self, name: str, scores: Callable[[], Tensor]) -> None:
        """Scores `[B, K, h, w]` of a classifier that looks at a step of the head without taking part in it."""

    def further(self, name: str, output: Callable[[], Tensor]) -> None:
        """An output that has a loss of its own in training: scores `[B, K, h, w]`, or logits `[B, K]` of which classes
        each image holds. `Head.loss_weights` has its weight."""


SILENT = Watch()
Options = TypeVar("Options", bound=HeadOptions)


class Head(nn.Module, Generic[Options]):
    """`{stage: [B, C, h, w]}` -> logits `[B, num_classes, h, w]` at the size of one of its stages: 5 as a rule, else lower.

    `stages` lists the stages it reads, `classifiers` the attributes that are made anew for other classes,
    `loss_weights` the weight of the loss of each further output that it tells a `Watch` of. `usual_stride` is that of
    stage 5 on a backbone that can be dilated, unless another is asked for.
    """

    classifiers: ClassVar[tuple[str, ...]] = ("classifier",)
    usual_stride: ClassVar[int] = 8
    stages: tuple[int, ...] = (5,)
    loss_weights: Mapping[str, float] = MappingProxyType({})

    @classmethod
    def build(cls, options: Options, channels: Mapping[int, int], num_classes: int) -> Self:
        """The head for stages of these `channels`. Raises ValueError for what cannot be built."""
        raise NotImplementedError

    def forward(self, features: Features, watch: Watch = SILENT, tiles: Tiles = WHOLE) -> Tensor:
        """`tiles` say where the features lie in their whole maps, where they are tiles of them. A head whose blocks cannot
        be seen in tiles raises ValueError with the reason (`whole_only`)."""
        raise NotImplementedError

    def fold(self) -> None:
        """Turn what the head alone knows how to fold into its folded form; norms and W_o are folded before."""


def whole_only(tiles: Tiles | Tile | None, reason: str) -> None:
    """Raise ValueError with the reason where a head is given tiles."""
    if tiles:
        raise ValueError(reason)


def channels_of(channels: Mapping[int, int], stage: int, option: str) -> int:
    """The channels of a stage below 5 that `option` names. Raises ValueError where the backbone has none such."""
    if stage not in channels or stage == 5:
        present = [s for s in sorted(channels) if s != 5]
        raise ValueError(f"{option}: stage {stage} cannot be taken beside stage 5; this backbone has {present}")
    return channels[stage]
