"""How a model sees an image: whole or in windows, at which scales, mirrored; and the published ways to do so by name.

Sources: ANN 4.2 (arXiv:1908.07678) and its official code, GALD IV-B and Table V (arXiv:1909.07229) and its official
code, the test pipelines of mmsegmentation 1.2.2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator

from nonlocalseg.choices import pick
from nonlocalseg.values import Count, Metavar, Side, Size, pair, value


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

    mode: Literal["whole", "slide", "stream"] = "whole"
    """Whole images; windows that slide over them, each seen alone; or stream, the same as whole in the memory of a tile,
    for images of any size. The last window of a row or column is shifted inside, and a side shorter than the crop is
    taken whole."""

    crop: Size | None = None
    """Height and width of the windows, or tiles, in pixels, the same at every scale; one number for both. Tiles are by
    default as large as memory allows."""

    stride: Steps | None = None
    """Step between windows, in pixels (512) or as a part of the crop (0.5); by default two thirds of the crop."""

    regional: Side | None = None
    """With mode stream, where one set of anchors for a very large map is not what was trained: what blocks gather from the
    whole image they gather from regions of this many pixels, which overlap by half and are blended."""

    small: Literal["shrink", "whole", "pad"] = "shrink"
    """An image with a side shorter than the crop: its windows are as short, it is taken whole, or it is padded to the
    crop with the mean colour."""

    scales: Scales = (1.0,)
    """Factors at which every image is seen; the results are averaged."""

    flip: bool = False
    """See every image mirrored as well."""

    average: Literal["probabilities", "logits"] = "probabilities"
    """What is averaged over windows, scales and flips."""

    softmax: Literal["window", "image"] = "window"
    """Where probabilities are made of scores: in each window, or in the image, of windows that were averaged as logits
    and resized."""

    short_side: Side | None = None
    """Pixels to which the shorter side of every image is brought first, for images much larger than those of the
    training; by default they keep their size."""

    long_side: Side | None = None
    """Pixels that the longer side may have; an image that would be longer is made smaller."""

    image_resize: Literal["bilinear", "opencv", "ann"] = "bilinear"
    """How images are resized: in float with the model's corners, in 8 bits as OpenCV does, or both as the official ANN
    does (like OpenCV to the short side, in float from there to each scale, sizes rounded down)."""

    score_resize: Literal["bilinear", "direct", "bicubic"] = "bilinear"
    """How scores reach the image's size: from that of the scale, bilinear or bicubic, or straight from the network's
    own grid (whole images)."""

    pad_multiple: Count | None = None
    """Images are padded with the mean colour on the right and bottom to a multiple of this."""

    def __post_init__(self) -> None:
        if self.mode == "slide" and self.crop is None:
            raise ValueError("crop: mode slide needs the size of its windows in pixels, such as 769")
        for name, given in (("crop", self.crop), ("stride", self.stride)):
            if self.mode == "whole" and given is not None:
                raise ValueError(f"{name}: mode whole has no windows; choose mode slide")
        if self.mode == "stream":
            self._check_stream()
        elif self.regional is not None:
            raise ValueError("regional: for mode stream; windows that slide gather alone already")
        for side, step in zip(self.crop or (), self.stride or (), strict=False):
            if isinstance(step, int) and step > side:
                raise ValueError(
                    f"stride: {step} is more than the crop ({side}) and would leave holes; make it smaller"
                )
        if self.mode == "whole" and self.small != "shrink":
            raise ValueError("small: mode whole has no windows; choose mode slide")
        if self.score_resize == "direct" and (self.mode == "slide" or self.average == "probabilities"):
            raise ValueError("score_resize: direct is for logits of whole images; choose bilinear, or average logits")
        if self.softmax == "image" and self.average == "logits":
            raise ValueError("softmax: logits are averaged, so none is taken; choose average probabilities")

    def _check_stream(self) -> None:
        """Raise ValueError for what goes with whole images or windows alone."""
        for name, usual in _NOT_IN_TILES.items():
            if getattr(self, name) != usual:
                cure = "leave it out" if usual is None else f"take {usual}"
                raise ValueError(f"{name}: mode stream cannot do that; {cure}, or choose mode whole or slide")

    @property
    def single(self) -> bool:
        """One pass over each image: there is nothing to average."""
        return self.mode != "slide" and self.scales == (1.0,) and not self.flip and not self.regional

    def words(self) -> list[str]:
        """How an image is seen, for people."""
        windows = f"windows of {self.crop[1]} × {self.crop[0]} pixels" if self.crop else "whole images"
        if self.mode == "stream":
            windows = (
                "whole images, in tiles" if self.regional is None else f"regions of {self.regional} pixels, in tiles"
            )
        resized = [f"shorter side {self.short_side} pixels"] if self.short_side else []
        resized += [f"longer side at most {self.long_side} pixels"] if self.long_side else []
        several = f"scales {', '.join(f'{scale:g}' for scale in self.scales)}"
        scales = "one scale" if self.scales == (1.0,) else several
        return [windows, *resized, scales, *(["mirrored as well"] if self.flip else [])]

    @property
    def economical(self) -> View:
        """The same, without the softmax that the best class of a single pass does not need."""
        return replace(self, average="logits", softmax="window") if self.single else self


_NOT_IN_TILES = {
    "stride": None,
    "small": "shrink",
    "image_resize": "bilinear",
    "score_resize": "bilinear",
    "pad_multiple": None,
}
"""Fields that must be as they are by default in mode stream."""

WHOLE = View()
"""Every image once, whole, as it is."""


@dataclass(frozen=True)
class NamedView:
    """source: which published figures were measured so."""

    source: str
    view: View


_SIX = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
_PLAIN = View(average="logits")
_ANN = View(average="logits", image_resize="ann", score_resize="bicubic", flip=True)
_GALD = View(average="logits", score_resize="direct")
_GALD_CROP = View(average="logits", mode="slide", crop=(832, 832), small="pad")

_MMSEG = "mmsegmentation's zoo"
# The size (longer, shorter side) into which mmsegmentation's test pipelines bring an image, where crops say no other.
_MMSEG_SIZES: Mapping[str, tuple[int, int]] = {
    "ade20k": (2048, 512),
    "cityscapes": (2048, 1024),
    "coco_stuff_10k": (2048, 512),
    "coco_stuff_164k": (2048, 512),
    "isaid": (896, 896),
    "loveda": (1024, 1024),
    "mapillary_vistas": (2048, 1024),
    "pascal_context": (520, 520),
    "pascal_context_59": (520, 520),
    "potsdam": (512, 512),
    "vaihingen": (512, 512),
    "voc2012": (2048, 512),
}
_MMSEG_SIZES_OF_CROPS = {
    ("cityscapes", 768): (2049, 1025),
    ("cityscapes", 769): (2049, 1025),
    ("ade20k", 640): (2560, 640),
}


def mmsegmentation_view(
    data: str, crop: tuple[int, int], test_cfg: Mapping[str, Any] | None = None, augmented: bool = False
) -> View:
    """How mmsegmentation 1.2.2 tests a model: 8-bit resize into the data set's size, then whole images or windows.

    Args:
        data: name of the data set, as in `DATASETS`; pascal_context_59 is PASCAL Context without its background.
        crop: height and width of the training's crops, on which the size depends.
        test_cfg: of its config: mode, and crop_size and stride of windows; by default whole images.
        augmented: its test-time augmentation (the zoo's column "mIoU(ms+flip)"): six scales of the image as it is, and
            mirrored.

    Raises ValueError for a data set that it has no test pipeline of, and for another mode.
    """
    config = dict(test_cfg or {"mode": "whole"})
    mode = pick("mode of test_cfg", str(config["mode"]), ("whole", "slide"))
    view = View(average="logits", image_resize="opencv")
    if mode == "slide":
        view = replace(view, mode="slide", crop=config["crop_size"], stride=config["stride"])
    long_side, short_side = _MMSEG_SIZES[pick("data set", data, _MMSEG_SIZES)]
    if augmented:
        return replace(view, scales=_SIX, flip=True, average="probabilities", softmax="image")
    long_side, short_side = _MMSEG_SIZES_OF_CROPS.get((data, crop[0]), (long_side, short_side))
    return replace(view, short_side=short_side, long_side=long_side)


_CITYSCAPES_769 = ("cityscapes", (769, 769), {"mode": "slide", "crop_size": (769, 769), "stride": (513, 513)})
_CONTEXT = ("pascal_context", (480, 480), {"mode": "slide", "crop_size": (480, 480), "stride": (320, 320)})

VIEWS: Mapping[str, NamedView] = {
    "ann-single": NamedView("ANN Tables 6, 7 and supplement Table 2: one scale, whole images", _PLAIN),
    "ann-cityscapes-test": NamedView(
        "ANN Table 3: windows of 864, three scales, mirrored",
        replace(_ANN, mode="slide", crop=(864, 864), stride=(0.667, 0.667), small="whole", scales=(0.75, 1.0, 1.25)),
    ),
    "ann-ade20k": NamedView(
        "ANN Table 4: whole images, shorter side 520, six scales, mirrored",
        replace(_ANN, scales=_SIX, short_side=520, pad_multiple=8),
    ),
    "ann-pascal-context": NamedView(
        "ANN Table 5: whole images, seven scales, mirrored", replace(_ANN, scales=(*_SIX, 2.0), pad_multiple=8)
    ),
    "gald-crop": NamedView("GALD Tables I and II: windows of 832, one scale", _GALD_CROP),
    "gald-whole": NamedView("GALD Table V (boundaries): one scale, whole images", _GALD),
    "gald-multi-scale": NamedView(
        "GALD Table IX, taken for VIII, X and XI: whole images, scales 0.5 to 1.75, mirrored",
        replace(_GALD, scales=_SIX, flip=True),
    ),
    "gald-crop-multi-scale": NamedView(
        "GALD Tables III, VI and VII: windows of 832, scales 0.5 to 1.75, mirrored",
        replace(_GALD_CROP, scales=_SIX, flip=True),
    ),
    "mmseg-cityscapes": NamedView(
        f"{_MMSEG}, Cityscapes, crops 512x1024: whole images", mmsegmentation_view("cityscapes", (512, 1024))
    ),
    "mmseg-cityscapes-769": NamedView(
        f"{_MMSEG}, Cityscapes, crops 769x769: windows of 769 every 513", mmsegmentation_view(*_CITYSCAPES_769)
    ),
    "mmseg-ade20k": NamedView(
        f"{_MMSEG}, ADE20K, VOC 2012, COCO-Stuff: whole images, shorter side 512",
        mmsegmentation_view("ade20k", (512, 512)),
    ),
    "mmseg-pascal-context": NamedView(
        f"{_MMSEG}, PASCAL Context: windows of 480, longer side 520", mmsegmentation_view(*_CONTEXT)
    ),
    "mmseg-multi-scale": NamedView(
        f"{_MMSEG}, ms+flip: whole images, scales 0.5 to 1.75, mirrored",
        mmsegmentation_view("ade20k", (512, 512), augmented=True),
    ),
    "mmseg-cityscapes-769-multi-scale": NamedView(
        f"{_MMSEG}, ms+flip, Cityscapes, crops 769x769: windows of 769, scales 0.5 to 1.75, mirrored",
        mmsegmentation_view(*_CITYSCAPES_769, augmented=True),
    ),
    "mmseg-pascal-context-multi-scale": NamedView(
        f"{_MMSEG}, ms+flip, PASCAL Context: windows of 480, scales 0.5 to 1.75, mirrored",
        mmsegmentation_view(*_CONTEXT, augmented=True),
    ),
}


def find_view(name: str) -> View:
    """The view called `name`; ValueError that names the nearest one where there is none."""
    return VIEWS[pick("inference setting", name, VIEWS)].view
