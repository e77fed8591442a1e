"""`ModelConfig`: everything that decides a network's structure, and what its classes are; the content of config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import SerializeAsAny

from nonlocalseg.heads.base import HeadOptions
from nonlocalseg.labels import Colour, LabelMap
from nonlocalseg.values import Count, NotNegative, Positive, Size, Whole, names_of, plain, value
from nonlocalseg.view import WHOLE, View

Wiring = Literal["default", "official", "mmseg", "paper"]
FORMAT_VERSION = 1


@value
class BackboneOptions:
    """Keywords of timm.create_model that change a network's widths and regularisation; no others reach timm, some of
    which would load files."""

    channels: tuple[Count, ...] | None = None
    "Channels of the stages of a ResNet."
    stem_type: str | None = None
    "Form of a ResNet's stem, such as deep."
    stem_width: Count | None = None
    "Channels of a ResNet's stem."
    img_size: Size | None = None
    "Height and width of the image that a transformer's positions are made for."
    drop_rate: NotNegative | None = None
    "Dropout."
    drop_path_rate: NotNegative | None = None
    "Stochastic depth."

    def keywords(self) -> dict[str, Any]:
        """Those that are set."""
        return {name: item for name in names_of(type(self)) if (item := getattr(self, name)) is not None}


@value
class NetworkOptions:
    """What every model has beside its head: the backbone's dilations and the auxiliary head."""

    output_stride: Whole | None = None
    "Stride of the backbone's last feature map, 8, 16 or 32; by default 8 (UPerNet: 32) where the network can be dilated."
    dilations: tuple[Count, Count] | None = None
    "Dilations of a ResNet's stages 4 and 5 (half of it in a stage's first block), by default those that make up for its strides."
    multi_grid: tuple[Count, ...] | None = None
    "Factors of the dilations in the blocks of stage 5, for ResNets."
    multi_grid_multiplies: bool = True
    "The multi-grid multiplies the stage's dilation; in mmsegmentation it takes its place."
    dilated_blocks: Literal["after_first", "all", "first"] = "after_first"
    "Blocks of a stage that have its dilation: all but the first, all (GALD's code), or the first (mmsegmentation's MobileNetV2)."
    dilate_second: bool = True
    "Both convolutions of ResNet-18's and -34's blocks are dilated; mmsegmentation dilates the first only."
    stride_first: bool = False
    "A bottleneck block strides in its first convolution, as Caffe's ResNets, not in its 3x3."
    average_dilated: bool = True
    "The shortcuts of a ResNet-D average 2x2 pixels where the stage is dilated; mmsegmentation's do not."
    norm_eps: Positive | None = None
    "What every batch norm adds to the variance; by default what the network's own do."
    max_pool_ceil: bool = False
    "The stem's max pool rounds up."
    backbone_options: BackboneOptions = BackboneOptions()
    "Widths and regularisation of the timm network: channels, stem_type, stem_width, img_size, drop_rate, drop_path_rate."
    auxiliary: bool = True
    "An auxiliary head on stage 4, in training."
    auxiliary_channels: Count = 512
    "Channels of the auxiliary head."
    auxiliary_bias: bool = True
    "The auxiliary head's convolution has a bias."
    auxiliary_dropout: NotNegative = 0.05
    "Dropout in the auxiliary head."

    def idle_network(self) -> frozenset[str]:
        """Names of the fields that have no effect with the others as they are."""
        heads: set[str] = set() if self.auxiliary else {"auxiliary_channels", "auxiliary_bias", "auxiliary_dropout"}
        return frozenset(heads | (set() if self.multi_grid else {"multi_grid_multiplies"}))


@value
class ModelConfig(NetworkOptions):
    """A model as it was resolved: head, backbone, wiring, classes, and every option."""

    model: str
    "Key of `MODELS`."
    options: SerializeAsAny[HeadOptions]
    "The head's own options."
    backbone: str = "resnet50c"
    "Name of the timm network."
    wiring: Wiring = "default"
    "Whose variant of the model the options began with."
    classes: tuple[str, ...]
    "Names of the classes."
    palette: tuple[Colour, ...]
    "One RGB colour (0 to 255) for each class."
    label_map: LabelMap | None = None
    "What values and colours of the label images mean that the model was trained with; None where that is not known."
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    "Mean of the images, RGB in [0, 1], that the backbone expects."
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    "Their standard deviation."
    view: View = WHOLE
    "How the model sees an image unless told otherwise."
    trained_crop: Size | None = None
    "Height and width in pixels of the crops that it was trained on."
    folded: bool = False
    "Folded for inference."
    converted_from: str | None = None
    "The project whose checkpoint the weights come from."

    def __post_init__(self) -> None:
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise ValueError("classes must be at least one name, each of them once")
        if len(self.palette) != len(self.classes):
            raise ValueError(f"palette must hold one RGB colour for each of the {len(self.classes)} classes")

    def __repr__(self) -> str:
        return f"ModelConfig({self.model} on {self.backbone}, wiring {self.wiring}, {len(self.classes)} classes)"

    def flat(self) -> Mapping[str, Any]:
        """Every resolved option of network and head by name, as JSON holds it."""
        network = {name: item for name, item in plain(self).items() if name in names_of(NetworkOptions)}
        return {**network, **plain(self.options)}
