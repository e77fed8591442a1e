"""The verb that labels photographs: predict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from nonlocalseg.cli.errors import FAILED, describe
from nonlocalseg.cli.options import Given, verb
from nonlocalseg.cli.shared import OnDevice
from nonlocalseg.cli.terminal import output, say
from nonlocalseg.files import check_folder
from nonlocalseg.values import Metavar, Names, Positional, Several, value
from nonlocalseg.view import View


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
    format: Annotated[tuple[Literal["cvat", "label-studio", "coco", "geojson"], ...], Several] = ()
    """What labelling tools import: all labels once more, as annotations that people correct there."""
    again: bool = False
    """Label everything anew, what an earlier call has done as well."""


@verb(Predict, View)
def predict(own: Predict, given: Given) -> int:
    """Label photographs with a trained model.

    MODEL is the folder of a run, a saved model, a name of the zoo (`nonlocalseg list zoo`), or one on the Hugging Face
    hub. PATHS are files, folders (searched through) and patterns such as "trip/**/*.jpg". For every photograph three
    pictures are written below --out, under its own name and at its own size: index/ (class numbers, a palette PNG),
    colour/ and overlay/; areas.csv holds what each class covers in each of them. Images are seen as the model says, where
    no option from --mode on says otherwise.
    manifest.csv lists every photograph once, with what became of it. Whatever cannot be labelled is named, there too,
    the others go on, and the exit code is 1. The same call again does only what is not done: what has failed or changed
    since, and everything where model or options are others. Pictures that an earlier prediction wrote are left out.
    --format writes what labelling tools import, of all photographs: annotations.xml for CVAT, label-studio.json,
    annotations/instances_default.json in COCO's form, geojson/NAME.geojson in pixels.

    Examples:
        nonlocalseg predict runs/demo/ann runs/demo/scenes --out labelled
        nonlocalseg predict runs/mine trip/ "more/**/*.png" --out labelled --scales 0.75 1.0 1.25 --flip
        nonlocalseg predict runs/mine aerial.tif --out labelled --mode slide --crop 769 --accumulate-on cpu
        nonlocalseg predict runs/mine photo.heic --short-side 512 --legend
        nonlocalseg predict mmseg:ann-r101-ade20k photo.jpg --out labelled
        nonlocalseg predict runs/mine trip/ --out labelled --format cvat label-studio
    """
    from nonlocalseg.data.annotations import annotate, check_names
    from nonlocalseg.images import read_mask
    from nonlocalseg.inference.batch import Labeller, way_of
    from nonlocalseg.inference.borrowed import settled_view
    from nonlocalseg.inference.manifest import Manifest
    from nonlocalseg.inference.predictor import KINDS
    from nonlocalseg.inference.sources import find_inputs
    from nonlocalseg.progress import track
    from nonlocalseg.runtime import pick_device
    from nonlocalseg.zoo.pretrained import from_pretrained

    if own.setting is not None:
        settled_view(None, None, own.setting, given)  # before anything is looked for
    folder, where = check_folder(own.out), pick_device(own.device)
    kept = None if own.accumulate_on is None else pick_device(own.accumulate_on)
    found = find_inputs(own.paths, folder)
    check_names(item.name for item in found.listed if own.format)
    network: Any = from_pretrained(own.model).to(where)
    view = settled_view(network, None, own.setting, given)
    writing = {"legend": own.legend, "probabilities": own.probabilities}
    way = way_of(network, view, {**writing, "fast": own.fast})
    if own.fast:
        from nonlocalseg.models.speed import speed_up

        network = speed_up(network, where)
        say(f"fast: {', '.join(network.choices)}")
    _tell("no images by their names", found.foreign)
    _tell("pictures that an earlier prediction wrote", found.own)
    manifest = Manifest(folder, way, found.listed, own.again)
    if manifest.earlier:
        say(f"{len(manifest.earlier)} of {len(found.listed)} were done earlier (--again does all of them anew)")
    left = [item for item in found.listed if item.input not in manifest.earlier]
    labeller = Labeller(network, view, where, kept, writing, lambda error: describe(error)[0].removeprefix("error: "))
    failed: set[str] = set()
    advised = False
    for item in track(left, "predicting"):
        result = labeller.label(item, folder)
        manifest.add(result)
        for note in result.notes:
            say(f"note: {note}")
        if result.advice and not advised:
            say(f"note: {result.advice}")
            advised = True
        if result.failed:
            failed.add(result.item.input)
            say(f"error: {result.reason}")
    labelled = [item.name for item in found.listed if item.input not in failed]
    if own.format and labelled:
        masks = ((name, read_mask(folder / KINDS[0] / f"{name}.png")) for name in labelled)
        annotate(folder, own.format, masks, network.classes, network.palette)
    output().print(f"{len(labelled)} of {len(found.listed)} images labelled, in {folder}")
    return FAILED if failed else 0


def _tell(what: str, paths: Sequence[Path]) -> None:
    """A line with the names of files that are left out."""
    if paths:
        say(f"left out, {what}: {', '.join(map(str, paths))}")
