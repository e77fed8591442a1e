"""One input of many on its way through the model: to its files and its row, the same in every engine."""

from __future__ import annotations

import errno
import hashlib
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from nonlocalseg.inference import large, predictor
from nonlocalseg.inference.borrowed import Model, fingerprint
from nonlocalseg.inference.predictor import KINDS
from nonlocalseg.inference.sources import Listed
from nonlocalseg.values import plain
from nonlocalseg.view import WHOLE, View

DONE, FAILED = "done", "failed"
FAR_LARGER = 2
"""A photograph whose shorter side is more than this many of that of the training's crops is worth a note."""
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
"""Errors of writing that no other photograph will escape."""


@dataclass(frozen=True)
class Labelled:
    """What became of one input: a row of the manifest, and those of areas.csv.

    reason: of a failure, in one line. notes: what is to be said. advice: what is to be said once of all.
    """

    item: Listed
    status: str
    reason: str = ""
    areas: list[dict[str, object]] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    advice: str = ""
    suffix: str = ".png"

    @property
    def failed(self) -> bool:
        return self.status == FAILED

    @property
    def output(self) -> str:
        """The label image, below the folder; empty where there is none."""
        return f"{KINDS[0]}/{self.item.name}{self.suffix}" if not self.failed else ""


@dataclass(frozen=True, eq=False)
class Labeller:
    """A model, how it sees images, and what is written of each.

    writing: keywords of `Prediction.save`. explain: an error as one line. accumulate_on: as in `predict`.
    """

    network: Model
    view: View
    device: torch.device
    accumulate_on: torch.device | None = None
    writing: Mapping[str, bool] = field(default_factory=dict)
    explain: Callable[[BaseException], str] = str

    def label(self, item: Listed, folder: Path) -> Labelled:
        """Write the pictures of one input below `folder`. Whatever is wrong with it becomes its reason; an OSError is
        raised only where no other input could be written either."""
        shown = item.place
        try:
            with item.fetched() as path, warnings.catch_warnings(record=True) as said:
                shown = str(path)
                warnings.simplefilter("always", UserWarning)
                if Path(path).suffix == large.ARRAYS:
                    return Labelled(
                        item, DONE, areas=self._into_array(item.name, Path(path), folder), suffix=large.ARRAYS
                    )
                result = predictor.predict(
                    self.network, path, self.view, device=self.device, accumulate_on=self.accumulate_on
                )
                result.save(folder, item.name, **self.writing)
                areas = [
                    {"image": item.name, "class": a.name, "pixels": a.pixels, "share": a.share} for a in result.areas()
                ]
        except Exception as error:
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise
            reason = self.explain(error).replace(shown, item.place)
            return Labelled(item, FAILED, reason if item.place in reason else f"{item.place}: {reason}")
        notes = tuple(str(each.message) for each in said)
        return Labelled(item, DONE, areas=areas, notes=notes, advice=self._advice(result))

    def _into_array(self, name: str, path: Path, folder: Path) -> list[dict[str, object]]:
        """The classes of an array that is read in windows, into index/NAME.npy, and what each covers."""
        if self.view.mode != "stream":
            raise ValueError(f"{path}: arrays are read in windows: choose --mode stream")
        counts = large.write_classes(self.network, path, folder / KINDS[0] / f"{name}{large.ARRAYS}", self.view)
        present = sorted((index for index, count in enumerate(counts) if count), key=lambda index: -counts[index])
        names, total = dict(enumerate(getattr(self.network, "classes", ()))), sum(counts)
        shares = {index: counts[index] / total for index in present}
        return [
            {"image": name, "class": names.get(index, index), "pixels": counts[index], "share": share}
            for index, share in shares.items()
        ]

    def _advice(self, result: predictor.Prediction) -> str:
        """What to say of a photograph whose things are far larger than those that the model was trained on."""
        config = getattr(self.network, "config", None)
        crop = None if config is None else config.trained_crop
        height, width = result.image.shape[:2]
        if crop is None or self.view.short_side is not None or min(height, width) <= FAR_LARGER * min(crop):
            return ""
        return (
            f"{result.name} has {width}x{height} pixels, and the model was trained on crops of {crop[1]}x{crop[0]}; "
            f"--short-side {min(crop)} brings photographs to such a size, which takes less memory and may be more right"
        )


@dataclass(frozen=True)
class Way:
    """What decides the files of an input: two results with the same of it are the same.

    model: a digest of its weights and config. view: its fields that are not those of a whole image, as JSON. options:
    what else was chosen, as JSON.
    """

    model: str
    view: str
    options: str


def way_of(network: object, view: View, options: Mapping[str, object]) -> Way:
    """`network` before it is made faster; `options` that are false or empty do not count."""
    digest = hashlib.sha256()
    if isinstance(network, nn.Module):
        digest.update(fingerprint(network).encode())
    if (config := getattr(network, "config", None)) is not None:
        digest.update(json.dumps(plain(config), sort_keys=True).encode())
    usual = plain(WHOLE)
    differing = {name: given for name, given in plain(view).items() if given != usual[name]}
    chosen = {name: given for name, given in options.items() if given}
    return Way(digest.hexdigest()[:16], *(json.dumps(one, sort_keys=True) for one in (differing, chosen)))
