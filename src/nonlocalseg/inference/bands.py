"""Bands: what of a GeoTIFF is shown to a model as red, green and blue."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from nonlocalseg.values import Count, Metavar, value


def _check_order(given: tuple[float, float]) -> tuple[float, float]:
    if not given[0] < given[1]:
        raise ValueError(f"{given[0]:g} {given[1]:g}; give a lower and a higher value, such as 0 10000")
    return given


Range = Annotated[tuple[float, float], AfterValidator(_check_order)]


@value
class Bands:
    """What of a GeoTIFF is shown to a model as red, green and blue."""

    bands: Annotated[tuple[Count, Count, Count] | None, Metavar("R G B")] = None
    """The bands of GeoTIFFs that are seen as red, green and blue, from 1 up; by default those that the file calls so, or
    its first three."""

    value_range: Annotated[Range | None, Metavar("LOW HIGH")] = None
    """The values in GeoTIFFs that are black and white, where they have more than 8 bits; what lies between is scaled
    linearly, what lies outside is cut off."""
