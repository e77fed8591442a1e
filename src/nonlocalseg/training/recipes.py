"""What a training consists of: phases, recipes and the published figures they answer to (ANN 4.1, GALD 4.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any


@dataclass(frozen=True)
class Phase:
    """One stretch of training: one data set, one schedule, one loss."""

    data: str = ""
    """Key of `DATASETS`."""
    root: str | None = None
    """Folder of the data; None where the data set needs none."""
    split: str = "train"
    """Split that is trained on; several are joined with `+`, as in `train+val`."""
    val_split: str | None = "val"
    """Split that is validated on; None for no validation."""
    data_options: Mapping[str, Any] = field(default_factory=dict)
    """Further options of the data set."""

    steps: int = 20_000
    """Optimizer steps."""
    batch_size: int = 8
    """Images per optimizer step, over all devices and accumulated batches together."""
    crop: tuple[int, int] = (480, 480)
    """Height and width of the training crop in pixels."""
    scale: tuple[float, float] = (0.5, 2.0)
    """Smallest and largest factor of the random resize."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    brightness: float = 0.1
    """Brightness is multiplied by a factor from [1 - brightness, 1 + brightness]."""
    class_balance: float | None = None
    """Crops are drawn again, up to 10 times, while one class fills more than this share; None accepts every crop."""

    optimizer: str = "sgd"
    """`sgd` (momentum 0.9) or `adamw`."""
    rate: float = 0.01
    """Learning rate of the backbone at the start of the schedule."""
    head_rate_multiplier: float = 10.0
    """Learning rate of everything but the backbone, as a multiple of `rate`."""
    weight_decay: float = 5e-4
    norm_decay: bool = True
    """False: no weight decay on biases and on the weights of normalisation layers."""
    power: float = 0.9
    """Exponent of the poly schedule (1 - step / steps)^power."""
    warmup_steps: int = 0
    """Steps over which the rate rises linearly before it follows the poly schedule."""
    min_rate: float = 0.0
    """Lower bound of the backbone's learning rate."""
    gradient_clip: float | None = None
    """Largest gradient norm; None clips nothing."""

    ohem: bool = True
    """Online hard example mining on the main output."""
    ohem_threshold: float = 0.7
    ohem_min_kept: int = 100_000
    """Pixels kept at least, over the batch of one device."""
    ohem_rule: str = "ann"
    auxiliary_weight: float = 0.4
    class_weights: tuple[float, ...] | None = None
    """One weight per class in the loss."""
    terms: Mapping[str, float] = field(default_factory=dict)
    """Weights of further loss terms on the main output: dice, lovasz, focal."""

    frozen_backbone: bool = False
    frozen_batchnorm: bool = False
    """Batch norm keeps its statistics, scale and shift as they are."""
    ema: float | None = None
    """Decay of the moving average of the weights that is validated and saved; None for no average."""
    val_every: int | None = None
    """Steps between validations and checkpoints; None for a tenth of `steps`, at most 4000."""

    @property
    def interval(self) -> int:
        """Steps between two validations."""
        return self.val_every or min(4000, -(-self.steps // 10))


@dataclass(frozen=True)
class Published:
    """One published figure that a recipe answers to."""

    table: str
    """Where it stands, for example `ANN Table 5`."""
    metric: str
    """For example `mIoU`."""
    value: float
    """In the publication's unit, usually per cent."""
    inference: str = "whole"
    """The inference setting, for example `slide, flip, 7 scales`."""


@dataclass(frozen=True)
class Recipe:
    """A named preset of training options, `<dataset>/<model>-<backbone>[-variant]`."""

    name: str
    model: str
    backbone: str
    phases: tuple[Phase, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of `create_model` beyond model and backbone."""
    pretrained: bool = True
    """The backbone starts from ImageNet weights."""
    published: tuple[Published, ...] = ()
    notes: str = ""


def _camvid(model: str, backbone: str) -> Recipe:
    """CamVid at 360x480 in SegNet's split."""
    phase = Phase(
        data="camvid",
        steps=12_000,
        batch_size=16,
        crop=(360, 480),
        rate=0.01,
        head_rate_multiplier=10.0,
        warmup_steps=200,
        ohem_min_kept=200_000,
    )
    return Recipe(
        name=f"camvid/{model}-{backbone}",
        model=model,
        backbone=backbone,
        phases=(phase,),
        notes="Validated on val; for the final figure train with --split train+val --val-split none.",
    )


def _synthetic(model: str) -> Recipe:
    """The drawn scenes and a network with a fraction of resnet10t's channels: minutes on two CPU cores."""
    phase = Phase(
        data="synthetic",
        data_options={"size": (64, 256)},
        steps=400,
        batch_size=8,
        crop=(64, 256),
        scale=(1.0, 1.0),
        optimizer="adamw",
        rate=2e-3,
        head_rate_multiplier=1.0,
        weight_decay=1e-2,
        warmup_steps=20,
        ohem=False,
    )
    options = {"backbone_options": {"channels": (32, 48, 96, 128)}, "channels": 128, "auxiliary_channels": 64}
    attention = {} if model == "fcn" else {"key_channels": 64, "value_channels": 64}
    return Recipe(
        name=f"synthetic/{model}-resnet10t",
        model=model,
        backbone="resnet10t",
        phases=(phase,),
        options=options | attention,
        pretrained=False,
        notes="From random weights: nothing is downloaded.",
    )


def _by_name(*recipes: Recipe) -> dict[str, Recipe]:
    return {recipe.name: recipe for recipe in recipes}


RECIPES: dict[str, Recipe] = _by_name(
    *(
        _camvid(model, backbone)
        for backbone in ("mobilenetv2_100", "resnet50c", "resnet18")
        for model in ("fcn", "apnb", "afnb", "ann")
    ),
    *(_synthetic(model) for model in ("fcn", "ann")),
)


def find_recipe(name: str) -> Recipe:
    """The recipe called `name`; ValueError that suggests the nearest name where there is none."""
    if name in RECIPES:
        return RECIPES[name]
    near = get_close_matches(name, RECIPES, n=1, cutoff=0.0)
    raise ValueError(f"no recipe is called {name!r}; the nearest is {near[0]!r} (see `nonlocalseg list recipes`)")
