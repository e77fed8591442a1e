"""How a model sees an image: whole or in windows, at which scales, mirrored; and both papers' ways to do so by name.

Sources: ANN 4.2 (arXiv:1908.07678) and its official configurations, GALD IV-B and Table V (arXiv:1909.07229).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator

from nonlocalseg.choices import pick
from nonlocalseg.values import Metavar, Side, Size, pair, value


def _check_scales(scales: tuple[float, ...]) -> tuple[float, ...]:
    if not scales or not all(scale > 0 and math.isfinite(scale) for scale in scales):
        given = " ".join(map(str, scales)) or "empty"
        raise ValueError(f"{given}; give one or more numbers above 0, such as 0.75 1.0 1.25")
    return scales


def _check_steps(steps: tuple[int | float, int | float]) -> tuple[int | float, int | float]:
    for step in steps:
        if not step > 0:
            raise ValueError(f"{step} is not above 0; give pixels (512) or a fraction of the crop (0.667)")
        if isinstance(step, float) and step > 1:
            raise ValueError(f"{step} is more than the crop (1.0) and would leave holes; give pixels as a whole number")
    return steps


Scales = Annotated[tuple[float, ...], AfterValidator(_check_scales)]
Steps = Annotated[tuple[int | float, int | float], BeforeValidator(pair), AfterValidator(_check_steps), Metavar("H W")]
"""Pixels (int) or a share of the crop (float), down and across; one number for both."""


@value
class View:
    """How an image is seen, and what is averaged where it is seen more than once."""

    mode: Literal["whole", "slide"] = "whole"
    """Whole images, or windows that slide over them (for large ones); the last window of a row or column is shifted
    inside, and a side shorter than the crop is taken whole."""

    crop: Size | None = None
    """Height and width of the windows in pixels, the same at every scale; one number for both."""

    stride: Steps | None = None
    """Step between windows, in pixels (512) or as a part of the crop (0.5); by default two thirds of the crop."""

    scales: Scales = (1.0,)
    """Factors at which every image is seen; the results are averaged."""

    flip: bool = False
    """See every image mirrored as well."""

    average: Literal["probabilities", "logits"] = "probabilities"
    """What is averaged over windows, scales and flips."""

    short_side: Side | None = None
    """Pixels to which the shorter side of every image is brought first, for images much larger than those of the
    training; by default they keep their size."""

    def __post_init__(self) -> None:
        if self.mode == "slide" and self.crop is None:
            raise ValueError("crop: mode slide needs the size of its windows in pixels, such as 769")
        for name, given in (("crop", self.crop), ("stride", self.stride)):
            if self.mode == "whole" and given is not None:
                raise ValueError(f"{name}: mode whole has no windows; choose mode slide")
        for side, step in zip(self.crop or (), self.stride or (), strict=False):
            if isinstance(step, int) and step > side:
                raise ValueError(
                    f"stride: {step} is more than the crop ({side}) and would leave holes; make it smaller"
                )

    @property
    def single(self) -> bool:
        """One pass over each image: there is nothing to average."""
        return self.mode == "whole" and self.scales == (1.0,) and not self.flip

    def words(self) -> list[str]:
        """How an image is seen, for people."""
        windows = f"windows of {self.crop[1]} × {self.crop[0]} pixels" if self.crop else "whole images"
        resized = [f"shorter side {self.short_side} pixels"] if self.short_side else []
        several = f"scales {', '.join(f'{scale:g}' for scale in self.scales)}"
        scales = "one scale" if self.scales == (1.0,) else several
        return [windows, *resized, scales, *(["mirrored as well"] if self.flip else [])]

    @property
    def economical(self) -> View:
        """The same, without the softmax that the best class of a single pass does not need."""
        return replace(self, average="logits") if self.single else self


WHOLE = View()
"""Every image once, whole, as it is."""


@dataclass(frozen=True)
class NamedView:
    """source: which published figures were measured so."""

    source: str
    view: View


_SIX = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)

VIEWS: Mapping[str, NamedView] = {
    "ann-single": NamedView("ANN Tables 6, 7 and supplement Table 2: one scale, whole images", WHOLE),
    "ann-cityscapes-test": NamedView(
        "ANN Table 3: windows of 864, three scales, mirrored",
        View(mode="slide", crop=(864, 864), stride=(0.667, 0.667), scales=(0.75, 1.0, 1.25), flip=True),
    ),
    "ann-ade20k": NamedView(
        "ANN Table 4: whole images, shorter side 520, six scales, mirrored",
        View(scales=_SIX, flip=True, short_side=520),
    ),
    "ann-pascal-context": NamedView(
        "ANN Table 5: whole images, seven scales, mirrored", View(scales=(*_SIX, 2.0), flip=True)
    ),
    "gald-crop": NamedView("GALD Tables I and II: windows of 832, one scale", View(mode="slide", crop=(832, 832))),
    "gald-whole": NamedView("GALD Table V (boundaries): one scale, whole images", WHOLE),
    "gald-multi-scale": NamedView(
        "GALD Table IX: whole images, scales 0.5 to 1.75, mirrored", View(scales=_SIX, flip=True)
    ),
    "gald-crop-multi-scale": NamedView(
        "GALD Tables III, VI and VII: windows of 832, scales 0.5 to 1.75, mirrored",
        View(mode="slide", crop=(832, 832), scales=_SIX, flip=True),
    ),
}


def find_view(name: str) -> View:
    """The view called `name`; ValueError that names the nearest one where there is none."""
    return VIEWS[pick("inference setting", name, VIEWS)].view
