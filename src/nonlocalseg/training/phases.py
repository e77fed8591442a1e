"""What a training consists of: phases, recipes and the published figures they answer to (ANN 4.1, GALD IV-B)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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
    short_side: int | None = None
    """Pixels to which the shorter side of every image is brought, in training and validation; None keeps its size."""
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
    layer_decay: float | None = None
    """The backbone's learning rate shrinks by this factor from each block to the one below (for transformers)."""
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
    loss_average: str | None = None
    """`valid` or `all`: the pixels that the loss is divided by, `all` counting ignored ones; None is the rule's own."""
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
