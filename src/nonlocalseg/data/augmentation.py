"""How training images are varied: the options of the random crop, resize, flip and brightness."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Le
from pydantic import AfterValidator, BeforeValidator

from nonlocalseg.values import Metavar, Positive, Side, pair, value


def _ordered(factors: tuple[float, float]) -> tuple[float, float]:
    if factors[0] > factors[1]:
        raise ValueError(f"{factors[0]} {factors[1]}; give the smallest factor first, then the largest")
    return factors


Sides = Annotated[tuple[Side, Side], BeforeValidator(pair), Metavar("H W")]
Factors = Annotated[tuple[Positive, Positive], AfterValidator(_ordered), Metavar("LOW HIGH")]
Share = Annotated[float, Ge(0), Le(1)]


@value
class Augmentation:
    """What happens to an image and its label between the file and the batch; `train_transform` does it."""

    crop: Sides = (480, 480)
    "Height and width of the training crop in pixels; one number for both."
    short_side: Side | None = None
    """Pixels to which the shorter side of every image is brought, in training and validation; by default images keep
    their size."""
    scale: Factors = (0.5, 2.0)
    "Smallest and largest factor of the random resize."
    flip: Share = 0.5
    "Probability of a horizontal flip."
    brightness: Share = 0.1
    "Brightness is multiplied by a factor from [1 - brightness, 1 + brightness]."
    class_balance: Annotated[float, Gt(0), Le(1)] | None = None
    "Crops are drawn again, up to 10 times, while one class fills more than this share; by default every crop is taken."
