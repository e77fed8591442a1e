"""The verb that labels photographs: predict."""

from __future__ import annotations

import errno
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from nonlocalseg.cli.errors import FAILED, describe
from nonlocalseg.cli.options import Given, verb
from nonlocalseg.cli.shared import OnDevice
from nonlocalseg.cli.terminal import output, say
from nonlocalseg.files import check_folder, write_rows, write_table
from nonlocalseg.values import Metavar, Names, Positional, value
from nonlocalseg.view import View

if TYPE_CHECKING:
    from nonlocalseg.inference.predictor import Prediction

FAR_LARGER = 2
"""A photograph whose shorter side is more than this many of that of the training's crops is worth a note."""
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
"""Errors of writing that no other photograph will escape."""


@value
class Predict(OnDevice):
    """The verb's own options."""

    model: Annotated[str, Positional()]
    """The model."""
    paths: Annotated[Names, Positional()]
    """The photographs."""
    out: Annotated[str, Metavar("DIR")] = "predictions"
    """Folder for the pictures."""
    setting: Annotated[str | None, Metavar("NAME")] = None
    """A paper's way to see images (`evaluate --help` lists them), instead of the options from --mode on."""
    legend: bool = False
    """Write the classes and their shares beside the overlays."""
    probabilities: bool = False
    """Write probabilities/NAME.npz as well, float32 [class, row, column]."""
    accumulate_on: Annotated[str | None, Metavar("DEVICE")] = None
    """Where the scores of a photograph are kept; cpu saves memory of the GPU."""
    fast: bool = False
    """The fastest form of the model on this device, which may mean half precision; it says what it chose."""


@verb(Predict, View)
def predict(own: Predict, given: Given) -> int:
    """Label photographs with a trained model.

    MODEL is the folder of a run, a saved model, a name of the zoo (`nonlocalseg list zoo`), or one on the Hugging Face
    hub. PATHS are files, folders (searched through) and patterns such as "trip/**/*.jpg". For every photograph three
    pictures are written below --out, under its own name and at its own size: index/ (class numbers, a palette PNG),
    colour/ and overlay/; areas.csv holds what each class covers in each of them. Images are seen as the model says, where
    no option from --mode on says otherwise.
    Whatever cannot be labelled is named and listed in skipped.csv, the others go on, and the exit code is 1. Pictures
    that an earlier prediction wrote are left out.

    Examples:
        nonlocalseg predict runs/demo/ann runs/demo/scenes --out labelled
        nonlocalseg predict runs/mine trip/ "more/**/*.png" --out labelled --scales 0.75 1.0 1.25 --flip
        nonlocalseg predict runs/mine aerial.tif --out labelled --mode slide --crop 769 --accumulate-on cpu
        nonlocalseg predict runs/mine photo.heic --short-side 512 --legend
        nonlocalseg predict mmseg:ann-r101-ade20k photo.jpg --out labelled
    """
    from nonlocalseg.inference.borrowed import settled_view
    from nonlocalseg.inference.photographs import AREAS, SKIPPED, find_photographs
    from nonlocalseg.inference.predictor import predict as label
    from nonlocalseg.progress import track
    from nonlocalseg.runtime import pick_device
    from nonlocalseg.zoo.pretrained import from_pretrained

    if own.setting is not None:
        settled_view(None, None, own.setting, given)  # before anything is looked for
    folder, where = check_folder(own.out), pick_device(own.device)
    kept = None if own.accumulate_on is None else pick_device(own.accumulate_on)
    found = find_photographs(own.paths, folder)
    network: Any = from_pretrained(own.model).to(where)
    view = settled_view(network, None, own.setting, given)
    if own.fast:
        from nonlocalseg.models.speed import speed_up

        network = speed_up(network, where)
        say(f"fast: {', '.join(network.choices)}")
    _tell("no images by their names", found.foreign)
    _tell("pictures that an earlier prediction wrote", found.own)
    areas: list[dict[str, object]] = []
    skipped: list[dict[str, object]] = []
    noted = False
    for image, name in track(found.names.items(), "predicting"):
        try:
            with warnings.catch_warnings(record=True) as notes:
                warnings.simplefilter("always", UserWarning)
                result = label(network, image, view, device=where, accumulate_on=kept)
            for each in notes:
                say(f"note: {each.message}")
            if not noted and (note := _far_larger(result, view, network)):
                say(note)
                noted = True
            result.save(folder, name, legend=own.legend, probabilities=own.probabilities)
            areas += [{"image": name, "class": a.name, "pixels": a.pixels, "share": a.share} for a in result.areas()]
        except Exception as error:
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise
            reason = describe(error)[0].removeprefix("error: ")
            skipped.append({"image": str(image), "reason": reason})
            say(f"error: {reason if str(image) in reason else f'{image}: {reason}'}")
    if areas:
        write_rows(folder / AREAS, areas)
    if skipped or (folder / SKIPPED).is_file():  # an earlier one's no longer counts
        write_table(folder / SKIPPED, ("image", "reason"), skipped)
    output().print(f"{len(found.names) - len(skipped)} of {len(found.names)} images labelled, in {folder}")
    return FAILED if skipped else 0


def _tell(what: str, paths: Sequence[Path]) -> None:
    """A line with the names of files that are left out."""
    if paths:
        say(f"left out, {what}: {', '.join(map(str, paths))}")


def _far_larger(result: Prediction, view: View, network: Any) -> str | None:
    """What to say of a photograph whose things are far larger than those that the model was trained on."""
    crop = None if network.config is None else network.config.trained_crop
    height, width = result.image.shape[:2]
    if crop is None or view.short_side is not None or min(height, width) <= FAR_LARGER * min(crop):
        return None
    return (
        f"note: {result.name} has {width}x{height} pixels, and the model was trained on crops of {crop[1]}x{crop[0]}; "
        f"--short-side {min(crop)} brings photographs to such a size, which takes less memory and may be more right"
    )
