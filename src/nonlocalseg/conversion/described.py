"""`Described`: what another project's network is in our terms; `Assumed`: what was assumed on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nonlocalseg.conversion.key_maps import Table

Triple = tuple[float, float, float]


class Assumed(UserWarning):
    """What a conversion assumed, or left out."""


@dataclass(frozen=True)
class Described:
    """`create_model(model, backbone, num_classes=..., **options)`, in the wiring of its project, builds it.

    num_classes: None where only the weights tell it. mean, std: of RGB images in [0, 1]. reversed_input: their network
    sees blue first, so that its first convolution is turned over. table: their keys -> ours, of the whole network.
    test: mmsegmentation's test_cfg (mode, crop_size, stride). reduce_zero_label: label 0 is ignored there, and the
    others count from it. notes: what was left out or assumed, for people.
    """

    model: str
    backbone: str
    options: dict[str, object]
    num_classes: int | None
    mean: Triple
    std: Triple
    reversed_input: bool
    table: Table
    test: Mapping[str, object] = field(default_factory=dict)
    reduce_zero_label: bool = False
    notes: tuple[str, ...] = ()
