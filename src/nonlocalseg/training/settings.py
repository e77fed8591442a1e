"""The inference settings of both papers by name: ANN 4.2 and its official configurations, GALD IV-B and Table V."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any

_SIX = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


@dataclass(frozen=True)
class InferenceSetting:
    """How a model sees an image when it is measured; the fields are options of `infer`."""

    source: str
    """Which published figures were measured so."""
    mode: str = "whole"
    crop: tuple[int, int] | None = None
    stride: float | None = None
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    average: str = "probabilities"
    short_side: int | None = None

    @property
    def options(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "source"}


SETTINGS: Mapping[str, InferenceSetting] = {
    "ann-single": InferenceSetting("ANN Tables 6, 7 and supplement Table 2: one scale, whole images"),
    "ann-cityscapes-test": InferenceSetting(
        "ANN Table 3: windows of 864, three scales, mirrored",
        mode="slide",
        crop=(864, 864),
        stride=0.667,
        scales=(0.75, 1.0, 1.25),
        flip=True,
    ),
    "ann-ade20k": InferenceSetting(
        "ANN Table 4: whole images, shorter side 520, six scales, mirrored", scales=_SIX, flip=True, short_side=520
    ),
    "ann-pascal-context": InferenceSetting(
        "ANN Table 5: whole images, seven scales, mirrored", scales=(*_SIX, 2.0), flip=True
    ),
    "gald-crop": InferenceSetting("GALD Tables I and II: windows of 832, one scale", mode="slide", crop=(832, 832)),
    "gald-whole": InferenceSetting("GALD Table V (boundaries): one scale, whole images"),
    "gald-multi-scale": InferenceSetting(
        "GALD Table IX: whole images, scales 0.5 to 1.75, mirrored", scales=_SIX, flip=True
    ),
    "gald-crop-multi-scale": InferenceSetting(
        "GALD Tables III, VI and VII: windows of 832, scales 0.5 to 1.75, mirrored",
        mode="slide",
        crop=(832, 832),
        scales=_SIX,
        flip=True,
    ),
}


def find_setting(name: str) -> InferenceSetting:
    """The setting called `name`; ValueError that names the nearest one where there is none."""
    if name in SETTINGS:
        return SETTINGS[name]
    near = get_close_matches(name, SETTINGS, n=1, cutoff=0.0)
    raise ValueError(f"no inference setting is called {name!r}; the nearest is {near[0]!r}, all: {', '.join(SETTINGS)}")
