"""One input of many on its way through the model: to its files and its row, the same in every engine."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from nonlocalseg.files import sweep_unfinished
from nonlocalseg.inference import large, predictor
from nonlocalseg.inference.bands import Bands
from nonlocalseg.inference.borrowed import Model, fingerprint
from nonlocalseg.inference.predictor import KINDS
from nonlocalseg.inference.rasters import SUFFIXES, is_raster
from nonlocalseg.inference.sources import Listed
from nonlocalseg.inference.unfinished import place_of
from nonlocalseg.values import names_of, plain
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

    writing: keywords of `Prediction.save`. explain: an error as one line. accumulate_on: as in `predict`. bands: of
    GeoTIFFs. quiet: no progress within a large image.
    """

    network: Model
    view: View
    device: torch.device
    accumulate_on: torch.device | None = None
    writing: Mapping[str, bool] = field(default_factory=dict)
    explain: Callable[[BaseException], str] = str
    bands: Bands = field(default_factory=Bands)
    quiet: bool = True

    def label(self, item: Listed, folder: Path) -> Labelled:
        """Write the pictures of one input below `folder`. Whatever is wrong with it becomes its reason; an OSError is
        raised only where no other input could be written either."""
        shown = item.place
        try:
            with item.fetched() as path, warnings.catch_warnings(record=True) as said:
                shown = str(path)
                warnings.simplefilter("always", UserWarning)
                if path.suffix == large.ARRAYS or is_raster(path, self.bands):
                    return self._in_windows(item, path, folder, said)
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

    def _in_windows(self, item: Listed, path: Path, folder: Path, said: Sequence[warnings.WarningMessage]) -> Labelled:
        """The classes of an array or GeoTIFF, which need not fit into memory, and what each covers."""
        reader = large.reader_of(path, self.bands)
        suffix = large.ARRAYS if path.suffix == large.ARRAYS else large.MAPS
        if note := getattr(reader, "note", ""):
            warnings.warn(f"{item.name}: {note}", stacklevel=2)
        covered = large.write_classes(
            self.network,
            reader,
            folder / KINDS[0] / f"{item.name}{suffix}",
            self.view,
            device=self.device,
            accumulate_on=self.accumulate_on,
            source=f"{item.input} {item.stamp}" if item.stamp else None,
            quiet=self.quiet,
        )
        names, total = dict(enumerate(getattr(self.network, "classes", ()))), sum(covered.pixels)
        order = sorted(range(len(covered.pixels)), key=lambda index: -covered.pixels[index])
        areas = [
            {
                "image": item.name,
                "class": names.get(index, index),
                "pixels": pixels,
                "share": pixels / total,
                "square_metres": None if covered.square_metres is None else pixels * covered.square_metres,
            }
            for index in order
            if (pixels := covered.pixels[index])
        ]
        if covered.left_out:
            areas.append({"image": item.name, "class": "", "pixels": covered.left_out})
        notes = tuple(str(each.message) for each in said)
        return Labelled(item, DONE, areas=areas, notes=notes, suffix=suffix)

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


def check_bands(bands: Bands, listed: Sequence[Listed], watched: bool = False) -> None:
    """ValueError where options about GeoTIFFs are given and none can be among the inputs."""
    if not watched and not any(item.name.lower().endswith(SUFFIXES) for item in listed):
        for name in names_of(Bands):
            if getattr(bands, name) is not None:
                raise ValueError(f"--{name.replace('_', '-')} is for GeoTIFFs, and there is none among PATHS")


def sweep_pictures(folder: Path) -> None:
    """Remove what calls that were killed while they wrote have left beside pictures; no other may be writing now."""
    for kind in (*KINDS, "probabilities"):
        for place, _, _ in os.walk(folder / kind):
            sweep_unfinished(Path(place))


def forget(folder: Path, listed: Sequence[Listed]) -> None:
    """Begin large images anew that an earlier call has not finished."""
    for item in listed:
        for suffix in (large.ARRAYS, large.MAPS):
            shutil.rmtree(place_of(folder / KINDS[0] / f"{item.name}{suffix}"), ignore_errors=True)
