"""The verbs about data: check-data, prepare, submit."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from json import dumps
from pathlib import Path
from typing import Any, Literal

from nonlocalseg.cli.errors import BAD_INPUT
from nonlocalseg.cli.terminal import check_device, say, track
from nonlocalseg.files import check_folder


def check_data(
    data: str,
    *,
    root: str | None = None,
    split: Sequence[str] | None = None,
    val_fraction: float | None = None,
    data_options: Mapping[str, Any] | None = None,
    json: str | None = None,
) -> int:
    """Read every image and label of a data set and say what is wrong with them, before any training.

    Prints how many images there are, their sizes and how much of them each class covers; then, by name, missing
    partners, unreadable files, labels of another size than their image, and the usual mistakes in masks (0/255 masks,
    labels off by one, values or colours without a class, palette against RGB). The exit code is 2 if anything is wrong.

    Args:
        data: name of the data set (`nonlocalseg list datasets`); `folder` for your own images.
        root: folder of the data.
        split: splits to read; by default all.
        val_fraction: for `folder` with one folder of images: the share that is kept for validation.
        data_options: further options of the data set, such as length=200.
        json: write the whole report to this file as well.

    Examples:
        nonlocalseg check-data folder --root my-images
        nonlocalseg check-data folder --root my-images --val-fraction 0.2 --json report.json
        nonlocalseg check-data camvid --root CamVid
    """
    from nonlocalseg.data.checking import check_dataset
    from nonlocalseg.files import write_text

    options = dict(data_options or {}) | ({} if val_fraction is None else {"val_fraction": val_fraction})
    _check_options(data, options)
    if json is not None:
        check_folder(Path(json).parent, "--json")
    report = check_dataset(data, root, split, progress=lambda items: track(items, "reading"), **options)
    print(report.text())
    if json is not None:
        write_text(json, dumps(report.as_dict(), indent=1) + "\n")
    if not report.problems:
        return 0
    count = len(report.problems)
    say(
        f"error: {count} problem{'' if count == 1 else 's'} in {report.root}: mend what is listed above and check again"
    )
    return BAD_INPUT


def prepare(data: str, *, root: str, workers: int | None = None) -> None:
    """Make what a data set's official download lacks for training, in parallel, and check the result.

    Most data sets are read as they unpack; for them this only checks that every split is there. Label images are made
    from Cityscapes' polygons and from PASCAL Context's JSON. Files that are there are kept, so that an interrupted run
    goes on where it was.

    Args:
        data: name of the data set (`nonlocalseg list datasets`).
        root: folder of the data.
        workers: threads; by default one for each core.

    Examples:
        nonlocalseg prepare cityscapes --root Cityscapes
        nonlocalseg prepare pascal_context --root VOC2010 --workers 8
    """
    from nonlocalseg.data.preparing import prepare as prepare_data

    print(prepare_data(data, root, workers, lambda finished, count: track(finished, "writing", count)).text())


def submit(data: Literal["cityscapes", "ade20k"], model: str, **options: Any) -> None:
    """Write the archive that a benchmark's server takes: its label ids, names and sizes, read back and checked.

    Args:
        data: the benchmark.
        model: folder of a run, a saved model, or a name on the Hugging Face hub.

    Examples:
        nonlocalseg submit cityscapes runs/city --root Cityscapes --out results.zip
        nonlocalseg submit ade20k runs/ade --root ADEChallengeData2016 --out results.zip --scales 0.75 1.0 1.25 --flip
    """
    check_device(options.get("device"))
    check_folder(Path(options["out"]).parent)
    done = submit_function()(data, model, progress=sys.stderr.isatty(), **options)
    score = "" if done.miou is None else f", mIoU {100 * done.miou:.2f} %"
    print(f"{done.images} images in {done.file}{score}")


def submit_function() -> Callable[..., Any]:
    from nonlocalseg.submission import submit

    return submit


def _check_options(data: str, options: Mapping[str, Any]) -> None:
    """ValueError, nearest named, for a data set or an option of it that does not exist."""
    from nonlocalseg.data.catalog import DATASETS
    from nonlocalseg.models.wirings import known

    names = inspect.signature(DATASETS[known("data set", data, DATASETS)]).parameters
    for name in options:
        known(f"option of {data}", name, [n for n in names if n not in ("root", "split", "transform", "strict")])
