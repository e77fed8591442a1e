"""The verb that labels photographs: predict."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from nonlocalseg.cli.errors import FAILED, one_line
from nonlocalseg.cli.options import Given, verb
from nonlocalseg.cli.shared import OnDevice
from nonlocalseg.cli.terminal import output, say, track
from nonlocalseg.files import check_folder
from nonlocalseg.labels import Palette
from nonlocalseg.values import Metavar, Names, Positional, changed, value
from nonlocalseg.view import View

if TYPE_CHECKING:
    import numpy as np

    from nonlocalseg.inference.predictor import Prediction


@value
class Predict(OnDevice):
    """The verb's own options."""

    model: Annotated[str, Positional()]
    """The model."""
    paths: Annotated[Names, Positional()]
    """The photographs."""
    out: Annotated[str, Metavar("DIR")]
    """Folder for the pictures."""
    probabilities: bool = False
    """Write probabilities/NAME.npz as well, float32 [class, row, column]."""
    accumulate_on: Annotated[str | None, Metavar("DEVICE")] = None
    """Where the scores of a photograph are kept; cpu saves memory of the GPU."""
    fast: bool = False
    """The fastest form of the model on this device, which may mean half precision; it says what it chose."""


@verb(Predict, View)
def predict(own: Predict, given: Given) -> int:
    """Label photographs with a trained model.

    MODEL is the folder of a run, a saved model, or a name on the Hugging Face hub. PATHS are files, folders (searched
    through) and patterns such as "trip/**/*.jpg". For every photograph three pictures are written below --out, under
    its own name and at its own size: index/ (class numbers, a palette PNG), colour/ and overlay/ (with a legend). A
    file that cannot be read is reported, the others go on, and the exit code is 1.

    Examples:
        nonlocalseg predict runs/demo/ann runs/demo/scenes --out labelled
        nonlocalseg predict runs/mine trip/ "more/**/*.png" --out labelled --scales 0.75 1.0 1.25 --flip
        nonlocalseg predict runs/mine aerial.tif --out labelled --mode slide --crop 769 --accumulate-on cpu
    """
    from nonlocalseg.images import read_image
    from nonlocalseg.inference.predictor import predict as label
    from nonlocalseg.models.hub import from_pretrained
    from nonlocalseg.runtime import pick_device

    view = changed(View(), given)
    named, folder, where = named_images(own.paths), check_folder(own.out), pick_device(own.device)
    kept = None if own.accumulate_on is None else pick_device(own.accumulate_on)
    network: Any = from_pretrained(own.model).to(where)
    if own.fast:
        from nonlocalseg.models.speed import speed_up

        network = speed_up(network, where)
        say(f"fast: {', '.join(network.choices)}")
    failed = 0
    for image, name in track(named.items(), "predicting"):
        try:
            pixels = read_image(image)
            result = label(network, pixels, view, device=where, accumulate_on=kept)
        except (ValueError, OSError) as error:
            reason = one_line(error)
            say(f"error: {reason if str(image) in reason else f'{image}: {reason}'}")
            failed += 1
            continue
        if own.probabilities:
            _write_probabilities(folder / "probabilities" / f"{name}.npz", result)
        mask = result.mask.numpy()
        del result  # the scores of a large photograph take gigabytes
        _write_pictures(folder, name, pixels, mask, network.classes, network.palette)
    output().print(f"{len(named) - failed} of {len(named)} images labelled, in {folder}")
    return FAILED if failed else 0


def named_images(paths: Iterable[str]) -> dict[Path, str]:
    """Image file -> name of its outputs without suffix: its path below the folder, or below the fixed part of the
    pattern, that was given. Where that would put two outputs in one place, their path below the folder common to all
    images, with the suffix (photo.jpg, photo.png), takes its place."""
    from nonlocalseg.images import find_images

    names: dict[Path, str] = {}
    for given in paths:
        base = _base(given)
        for image in find_images([given]):
            names.setdefault(image, image.relative_to(base).with_suffix("").as_posix())
    common = os.path.commonpath([os.path.dirname(os.path.abspath(image)) for image in names])
    whole = {image: Path(os.path.abspath(image)).relative_to(common).as_posix() for image in names}
    counts = Counter(name.lower() for name in names.values())  # some disks ignore case
    mixed = {image: whole[image] if counts[name.lower()] > 1 else name for image, name in names.items()}
    return mixed if len({name.lower() for name in mixed.values()}) == len(mixed) else whole


def _base(given: str) -> Path:
    path = Path(given).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        return path.parent
    last = len(path.parts) - 1
    first = next((i for i, part in enumerate(path.parts) if any(sign in part for sign in "*?[")), last)
    return Path(*path.parts[: min(first, last)])


def _write_pictures(
    folder: Path, name: str, pixels: np.ndarray, mask: np.ndarray, classes: Sequence[str], palette: Palette
) -> None:
    """The three pictures of one photograph, each whole or not at all."""
    from nonlocalseg import drawing
    from nonlocalseg.images import write_image, write_mask

    write_mask(folder / "index" / f"{name}.png", mask, palette if len(palette) <= 256 else None)
    write_image(folder / "colour" / f"{name}.png", drawing.colour(mask, palette))
    overlay = drawing.overlay_with_legend(pixels, mask, classes, palette, title=name)
    write_image(folder / "overlay" / f"{name}.png", overlay)


def _write_probabilities(path: Path, result: Prediction) -> None:
    import numpy as np

    from nonlocalseg.files import writing

    with writing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, probabilities=result.probabilities.numpy(), classes=np.array(result.classes))
