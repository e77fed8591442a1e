"""What a training consists of: phases, recipes and the published figures they answer to (ANN 4.1, GALD IV-B)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from annotated_types import Gt, Le, Lt
from pydantic import BeforeValidator

from nonlocalseg.data.augmentation import Augmentation
from nonlocalseg.data.source import DataSource
from nonlocalseg.values import Count, Natural, NotNegative, Positive, value
from nonlocalseg.view import WHOLE, View

# As in losses.py, which needs torch; a test compares the two.
OhemRule = Literal["ann", "ann_official", "gald", "mmseg", "top_k"]
LossTerm = Literal["dice", "lovasz", "focal"]


def _none(given: object) -> object:
    """The word for nothing, which the command line needs."""
    return None if given in ("none", ["none"], ("none",)) else given


@value
class Phase(Augmentation, DataSource):
    """One stretch of training: one data set, one schedule, one loss."""

    split: str = "train"
    """Split to train on; several are joined with +, as in train+val."""

    val_split: Annotated[str | None, BeforeValidator(_none)] = "val"
    """Split to validate on; `none` for no validation."""

    steps: Count = 20_000
    """Optimizer steps."""

    batch_size: Annotated[Count, Le(65_536)] = 8
    """Images per optimizer step, over all devices and accumulated parts together."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Which optimizer; sgd has momentum 0.9."""

    rate: Positive = 0.01
    """Learning rate of the backbone at the start of the schedule."""

    head_rate_multiplier: Positive = 10.0
    """Learning rate of everything but the backbone, as a multiple of `rate`."""

    layer_decay: Annotated[float, Gt(0), Le(1)] | None = None
    """The backbone's rate shrinks by this factor, such as 0.8, from each block to the one below, for transformers."""

    weight_decay: NotNegative = 5e-4
    """Weight decay."""

    norm_decay: bool = True
    """Weight decay also on biases and on the weights of normalisation layers."""

    power: NotNegative = 0.9
    """Exponent of the poly schedule (1 - step / steps)^power."""

    warmup_steps: Natural = 0
    """Steps over which the rate rises linearly before it follows the poly schedule."""

    min_rate: NotNegative = 0.0
    """Lower bound of the backbone's learning rate."""

    gradient_clip: Positive | None = None
    """Largest gradient norm; by default nothing is clipped."""

    ohem: bool = True
    """Online hard example mining on the main output."""

    ohem_threshold: NotNegative = 0.7
    """Pixels whose true class has a lower probability count as hard."""

    ohem_min_kept: Natural = 50_000
    """Pixels kept at least, times the images that one device sees at once: a share of the whole batch, whatever the
    devices and accumulated parts that it is split over."""

    ohem_rule: OhemRule = "ann"
    """Whose definition of OHEM."""

    loss_average: Literal["valid", "all"] | None = None
    """Divide the loss by the valid pixels, or by all, ignored ones too; by default as the OHEM rule does."""

    auxiliary_weight: NotNegative = 0.4
    """Weight of the auxiliary loss."""

    class_weights: Annotated[tuple[float, ...] | None, BeforeValidator(_none)] = None
    """One weight per class in the loss; `none` for none."""

    terms: dict[LossTerm, float] = field(default_factory=dict)
    """Weights of further loss terms on the main output: dice, lovasz, focal."""

    frozen_backbone: bool = False
    """Leave the backbone as it is."""

    frozen_batchnorm: bool = False
    """Leave batch norm as it is: statistics, scale and shift."""

    ema: Annotated[float, Gt(0), Lt(1)] | None = None
    """Decay, such as 0.999, of a moving average of the weights, which is then validated and saved."""

    val_every: Count | None = None
    """Steps between validations and checkpoints; by default a tenth of `steps`, at most 4000."""

    @property
    def interval(self) -> int:
        """Steps between two validations."""
        return self.val_every or min(4000, -(-self.steps // 10))

    def validates_after(self, step: int) -> bool:
        """Whether a validation follows the `step`-th step."""
        return self.val_split is not None and (step % self.interval == 0 or step == self.steps)

    @property
    def validation(self) -> DataSource | None:
        """What is validated on; None for no validation."""
        return None if self.val_split is None else self.source(self.val_split)

    @property
    def view(self) -> View:
        """How images are seen in the validation."""
        return View(short_side=self.short_side)

    def source(self, split: str) -> DataSource:
        """The phase's data in another split."""
        return DataSource(data=self.data, root=self.root, split=split, data_options=self.data_options)


@dataclass(frozen=True)
class Published:
    """One published figure that a recipe answers to."""

    table: str
    """Where it stands, for example `ANN Table 5`."""
    metric: str
    """For example `mIoU`."""
    value: float
    """In the publication's unit, usually per cent."""
    view: View = WHOLE
    """How the images were seen."""
    classes: tuple[float, ...] = ()
    """The same for each class, in the data set's order, where the publication has it."""
    whose: str = ""
    """The network that the publication quotes it of; nothing where the figure is its own."""


@dataclass(frozen=True)
class Recipe:
    """A named preset of training options, `<dataset>/<model>-<backbone>[-variant]`."""

    name: str
    model: str
    backbone: str
    phases: tuple[Phase, ...]
    options: Mapping[str, object] = field(default_factory=dict)
    """Options of `create_model` beyond model and backbone."""
    pretrained: bool = True
    """The backbone starts from ImageNet weights."""
    published: tuple[Published, ...] = ()
    notes: str = ""

    def noting(self, remark: str) -> Recipe:
        """The same with a further remark."""
        return replace(self, notes=f"{self.notes} {remark}")
