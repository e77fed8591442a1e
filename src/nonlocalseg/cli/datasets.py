"""The verbs about data: check-data, prepare, submit."""

from __future__ import annotations

import sys
from json import dumps
from pathlib import Path
from typing import Annotated, Literal

from nonlocalseg.cli.errors import BAD_INPUT
from nonlocalseg.cli.options import Given, verb
from nonlocalseg.cli.shared import OfFolder, OnDevice
from nonlocalseg.cli.terminal import say, show
from nonlocalseg.data.source import DataSource
from nonlocalseg.files import check_folder
from nonlocalseg.progress import track
from nonlocalseg.values import Count, Metavar, Names, Positional, value
from nonlocalseg.view import View


@value
class CheckData(OfFolder):
    """The verb's own options."""

    data: Annotated[str, Positional()]
    """Name of the data set (`nonlocalseg list datasets`); `folder` for your own images."""
    split: Names | None = None
    """Splits to read; by default all."""
    json: Annotated[str | None, Metavar("FILE")] = None
    """Write the whole report to this file as well."""


@verb(CheckData, DataSource)
def check_data(own: CheckData, given: Given) -> int:
    """Read every image and label of a data set and say what is wrong with them, before any training.

    Prints how many images there are, their sizes and how much of them each class covers; notes, as on images that two
    splits share or pixels that are mostly ignored; then, by name, missing partners, unreadable files, labels of another
    size than their image, and the usual mistakes in masks (JPEG, 0/255 masks, smoothed edges, labels off by one, values
    or colours without a class, palette against RGB, nothing labelled). The exit code is 2 if anything is wrong.

    Examples:
        nonlocalseg check-data folder --root my-images
        nonlocalseg check-data folder --root my-images --val-fraction 0.2 --json report.json
        nonlocalseg check-data camvid --root CamVid
    """
    from nonlocalseg.data.checking import check_dataset
    from nonlocalseg.files import write_text

    source = DataSource(data=own.data, **own.joined(given))
    if own.json is not None:
        check_folder(Path(own.json).parent, "--json")
    report = check_dataset(source, own.split, lambda items: track(items, "reading"))
    show(report.text())
    if own.json is not None:
        write_text(own.json, dumps(report.as_dict(), indent=1) + "\n")
    if not report.problems:
        return 0
    count = len(report.problems)
    say(
        f"error: {count} problem{'' if count == 1 else 's'} in {report.root}: mend what is listed above and check again"
    )
    return BAD_INPUT


@value
class Prepare:
    """The verb's own options."""

    data: Annotated[str, Positional()]
    """Name of the data set (`nonlocalseg list datasets`)."""
    root: Annotated[str, Metavar("DIR")]
    """Folder of the data."""
    shards: Annotated[str | None, Metavar("DIR")] = None
    """Write all images and labels into shards in this folder: few large files that are read faster, and that --root takes
    everywhere in place of the data set's own."""
    form: Literal["pixels", "files"] = "pixels"
    """What the shards hold: decoded pixels, the fastest to read; or the image files as they are, which for JPEGs takes a
    tenth of the space."""
    data_options: Annotated[dict[str, object] | None, Metavar("NAME=VALUE")] = None
    """For --shards: further options of the data set, the same as in training."""
    workers: Count | None = None
    """Threads; by default one for each core."""


@verb(Prepare)
def prepare(own: Prepare, given: Given) -> None:
    """Make what a data set's official download lacks for training, in parallel, and check the result.

    Most data sets are read as they unpack; for them this only checks that every split is there. Label images are made
    from Cityscapes' polygons and from PASCAL Context's JSON. Files that are there are kept, so that an interrupted run
    goes on where it was.

    Examples:
        nonlocalseg prepare cityscapes --root Cityscapes
        nonlocalseg prepare pascal_context --root VOC2010 --workers 8
        nonlocalseg prepare cityscapes --root Cityscapes --shards city-shards
    """
    from nonlocalseg.data.preparing import prepare

    if own.shards is not None:
        check_folder(own.shards, "--shards")
    done = prepare(own.data, own.root, own.workers, lambda finished, count: track(finished, "writing", count))
    show(done.text())
    if own.shards is not None:
        from nonlocalseg.data.sharding import write_shards

        source = DataSource(data=own.data, root=own.root, data_options=own.data_options or {})
        made = write_shards(
            source, own.shards, own.form, own.workers, lambda done, count: track(done, "writing", count)
        )
        size = sum(made.sizes) / 1e9
        show(f"{len(made.samples)} images in {len(made.sizes)} shards, {size:.1f} GB; now give --root {own.shards}")


@value
class Submit(OnDevice):
    """The verb's own options."""

    data: Annotated[Literal["cityscapes", "ade20k"], Positional()]
    """The benchmark."""
    model: Annotated[str, Positional()]
    """Folder of a run, a saved model, a name of the zoo, or one on the Hugging Face hub."""
    root: Annotated[str, Metavar("DIR")]
    """Folder of the data."""
    out: Annotated[str, Metavar("FILE")]
    """The archive to write, a .zip."""
    split: Literal["test", "val"] = "test"
    """Split to predict; val has labels, so that its score can be told."""
    setting: Annotated[str | None, Metavar("NAME")] = None
    """A published way to see images (`nonlocalseg evaluate --help` lists them), instead of the options from --mode on."""


@verb(Submit, View)
def submit(own: Submit, given: Given) -> None:
    """Write the archive that a benchmark's server takes: its label ids, names and sizes, read back and checked.

    Examples:
        nonlocalseg submit cityscapes runs/city --root Cityscapes --out results.zip
        nonlocalseg submit ade20k runs/ade --root ADEChallengeData2016 --out results.zip --scales 0.75 1.0 1.25 --flip
    """
    from nonlocalseg.evaluation.submission import submit
    from nonlocalseg.runtime import pick_device

    device = pick_device(own.device)
    check_folder(Path(own.out).parent)
    done = submit(
        own.data,
        own.model,
        own.out,
        root=own.root,
        split=own.split,
        setting=own.setting,
        device=device,
        progress=sys.stderr.isatty(),
        **given,
    )
    score = "" if done.miou is None else f", mIoU {100 * done.miou:.2f} %"
    show(f"{done.images} images in {done.file}{score}")
