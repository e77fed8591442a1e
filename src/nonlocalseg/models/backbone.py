"""Backbones: timm features at a chosen output stride, with multi-grid dilations, fed images of any size."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nonlocalseg.choices import hint
from nonlocalseg.models.config import NetworkOptions
from nonlocalseg.models.dilations import arrange_blocks
from nonlocalseg.models.pretrained import find_weights


class Backbone(nn.Module):
    """A timm feature extractor: images `[B, 3, H, W]` -> `{stage: [B, C, h, w]}`.

    Stage 5 is the last returned feature, stage 4 the one before, and so on. `channels` and `strides` go by stage.
    `output_stride` is what the network was dilated to, None where it keeps its own; `usual_stride` is tried where the
    options name none. Networks that cut the image into
    patches get it padded on the right and bottom to a multiple of `multiple`; the caller crops. Raises `ValueError`
    for a name timm does not know, and for an output stride it cannot have.
    """

    def __init__(
        self,
        name: str,
        options: NetworkOptions,
        pretrained: bool = False,
        weights: str | Path | None = None,
        usual_stride: int = 8,
    ) -> None:
        super().__init__()
        extra = options.backbone_options.keywords()
        body, self.output_stride = _create(name, options.output_stride, usual_stride, extra, pretrained, weights)
        self.body: nn.Module = body
        info = body.feature_info
        count = len(info.channels())
        stages = range(6 - count, 6)
        self.channels: dict[int, int] = dict(zip(stages, info.channels(), strict=True))
        self.strides: dict[int, int] = dict(zip(stages, info.reduction(), strict=True))
        self.multiple = _patch_multiple(self.body, max(self.strides.values()))
        self.has_batch_norm = any(isinstance(m, (nn.BatchNorm2d, nn.SyncBatchNorm)) for m in self.body.modules())
        arrange_blocks(self.body, name, options)
        self.channels_last = getattr(self.body, "output_fmt", "NCHW") == "NHWC"
        if _family(name) not in _ANY_SIZE:
            self.multiple = self._tried_multiple(name)

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        features = self.body(images)
        if self.channels_last:
            features = [x.permute(0, 3, 1, 2) for x in features]
        return dict(zip(self.channels, features, strict=True))

    def _tried_multiple(self, name: str) -> int:
        """The multiple of which images must be, found by trying; ValueError where only sizes of its own will do."""
        reason = ""
        for multiple in sorted({self.multiple, max(self.strides.values())}):
            self.multiple = multiple
            reason = self._mistake()
            if not reason:
                return multiple
        raise ValueError(f"backbone: {name} cannot see images of any size ({reason}): choose another")

    @torch.no_grad()
    def _mistake(self) -> str:
        """What goes wrong on a small image and on one of odd sides; nothing where both pass."""
        mode, device = self.body.training, next(self.body.parameters()).device
        self.body.eval()
        try:
            for size in ((64, 64), (97, 65)):
                features = self(self.pad(torch.zeros(1, 3, *size, device=device)))
                if any(x.ndim != 4 or x.shape[1] != self.channels[stage] for stage, x in features.items()):
                    return "its features are no maps"
        except (RuntimeError, AssertionError, ValueError, IndexError, TypeError) as error:
            return str(error).strip().partition("\n")[0] or type(error).__name__
        finally:
            self.body.train(mode)
        return ""

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """The size that an image of this size is padded to."""
        to = self.multiple
        return (height + to - 1) // to * to, (width + to - 1) // to * to

    def pad(self, images: Tensor) -> Tensor:
        """The images padded with zeros on the right and bottom to a multiple of the patch size."""
        height, width = self.padded_size(images.shape[2], images.shape[3])
        bottom, right = height - images.shape[2], width - images.shape[3]
        # In export, where the sides are unknown, whether there is anything to pad is no question.
        unknown = self.multiple > 1 and torch.compiler.is_exporting()
        return F.pad(images, (0, right, 0, bottom)) if unknown or bottom or right else images


_ANY_SIZE = {
    "byobnet",
    "convnext",
    "densenet",
    "dpn",
    "efficientnet",
    "eva",
    "ghostnet",
    "mobilenetv3",
    "regnet",
    "resnet",
}
_ANY_SIZE |= {"resnetv2", "vision_transformer"}
"""timm's families that take images of any size, padded to their patches; the others are tried when they are made."""


def normalisation(name: str) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation (RGB in [0, 1]) that the timm network `name` was trained with."""
    import timm

    config = timm.get_pretrained_cfg(name)
    if config is None:
        return (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    mean, std = config.mean, config.std
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])


def _create(
    name: str,
    output_stride: int | None,
    usual_stride: int,
    extra: dict[str, Any],
    pretrained: bool,
    weights: str | Path | None,
) -> tuple[Any, int | None]:
    """The features-only network and the output stride it was dilated to, None where it keeps its own.

    Asking for None dilates to `usual_stride` where the network can be dilated.
    """
    import timm

    if not timm.is_model(name):
        raise ValueError(f"backbone: timm knows no {name!r}; {_nearest(name)}")
    options: dict[str, Any] = {**extra, "features_only": True, "pretrained": pretrained or weights is not None}
    if weights is not None:
        if not Path(weights).is_file():
            raise FileNotFoundError(f"backbone-weights: {weights} does not exist")
        options["pretrained_cfg_overlay"] = {"file": str(weights)}
    elif pretrained:
        try:
            cached = find_weights(name)
        except ValueError as error:
            raise ValueError(_unpretrained(name, error)) from error
        if cached is not None:
            options["pretrained_cfg_overlay"] = {"file": str(cached)}
    fixed = {
        "vision_transformer": "dynamic_img_size",
        "deit": "dynamic_img_size",
        "eva": "dynamic_img_size",
        "swin_transformer": "strict_img_size",
    }
    flexible = fixed.get(_family(name))
    if flexible is not None:
        options[flexible] = flexible == "dynamic_img_size"
        if output_stride is not None:
            raise ValueError(f"output_stride: {name} is a transformer and keeps its patch size: leave it out")
    else:
        options["output_stride"] = usual_stride if output_stride is None else output_stride
    try:
        body = _timm_create(name, options, weights)
    except (AssertionError, NotImplementedError, TypeError, KeyError) as error:
        if "output_stride" not in options:
            raise
        if output_stride is not None:
            raise ValueError(
                f"output_stride: {name} cannot be dilated to {output_stride} ({error}): leave it out"
            ) from error
        options.pop("output_stride")
        body = _timm_create(name, options, weights)
    return body, options.get("output_stride")


def _timm_create(name: str, options: dict, weights: str | Path | None) -> Any:
    import timm

    log = logging.getLogger("timm")
    level = log.level
    log.setLevel(logging.ERROR)  # it tells the keys of the classifier, which features have no use for
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return timm.create_model(name, **options)
    except (AssertionError, NotImplementedError, TypeError, KeyError):
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if weights is not None:
            raise ValueError(f"backbone-weights: {weights} does not fit {name}: {reason}") from error
        if options["pretrained"]:
            raise ValueError(_unpretrained(name, reason)) from error
        raise ValueError(f"backbone: {name} gives no features for segmentation: {reason}") from error
    finally:
        log.setLevel(level)


def _unpretrained(name: str, reason: object) -> str:
    return (
        f"pretrained weights of {name} could not be loaded ({reason}): give a local file with --backbone-weights FILE, or "
        "--no-pretrained"
    )


def _family(name: str) -> str:
    """The timm module that defines the network, e.g. "resnet"."""
    from timm.models import model_entrypoint

    return model_entrypoint(name).__module__.rpartition(".")[2]


def _nearest(name: str) -> str:
    import timm

    found = hint(name, timm.list_models())
    return found if found.startswith("did you mean") else "`timm.list_models()` lists the names"


def _patch_multiple(body: nn.Module, largest_stride: int) -> int:
    """1 where the first convolution overlaps its neighbours and pads; else the size that divides the input evenly."""
    first = next((m for m in body.modules() if isinstance(m, nn.Conv2d)), None)
    patched = first is not None and first.stride[0] > 1 and first.kernel_size == first.stride
    return largest_stride if patched else 1
