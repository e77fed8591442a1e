"""Options that several verbs have of their own, each written once, for their values to inherit."""

from __future__ import annotations

from typing import Annotated

from nonlocalseg.cli.options import Given
from nonlocalseg.values import Metavar, value


@value
class OnDevice:
    device: Annotated[str | None, Metavar("DEVICE")] = None
    """cpu, cuda, cuda:1 ...; by default a GPU where there is one."""


@value
class OfFolder:
    val_fraction: Annotated[float | None, Metavar("X")] = None
    """For --data folder with one folder of images: the share that is kept for validation (default: 0.2), the
    same as in training."""

    def joined(self, given: Given) -> Given:
        """`given`, the share among the options of the data set."""
        return joined(given, "data_options", val_fraction=self.val_fraction)


def joined(given: Given, name: str, **more: object) -> Given:
    """`given`, where those of `more` that are set join the options that are called `name`."""
    found = {**given.get(name, {}), **{key: item for key, item in more.items() if item is not None}}
    return {**given, name: found} if found else given
