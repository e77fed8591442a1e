"""The verb that labels photographs and videos: predict."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from nonlocalseg.cli.errors import FAILED, describe
from nonlocalseg.cli.moving import footage_of, label_videos, target_of, watched_footage
from nonlocalseg.cli.options import Given, verb
from nonlocalseg.cli.shared import OnDevice
from nonlocalseg.cli.terminal import output, say
from nonlocalseg.cli.watching import watch_folders
from nonlocalseg.files import check_folder
from nonlocalseg.inference.bands import Bands
from nonlocalseg.inference.footage import Footage
from nonlocalseg.values import Count, Metavar, Names, Positional, Several, plain, value
from nonlocalseg.view import View

if TYPE_CHECKING:
    import torch

    from nonlocalseg.inference.batch import Labeller, Way
    from nonlocalseg.inference.many import Quick
    from nonlocalseg.inference.sources import Inputs


@value
class Predict(OnDevice, Footage, Bands):
    """The verb's own options."""

    model: Annotated[str, Positional()]
    """The model."""
    paths: Annotated[Names, Positional()]
    """The photographs and videos, or lists of photographs."""
    column: Annotated[str | None, Metavar("NAME")] = None
    """Of a list or Parquet file: the column with paths, addresses or the bytes of images; by default input, image, path,
    file_name or url, whichever there is."""
    out: Annotated[str, Metavar("DIR|FILE")] = "predictions"
    """Folder for the pictures, or the file for one video."""
    setting: Annotated[str | None, Metavar("NAME")] = None
    """A paper's way to see images (`evaluate --help` lists them), instead of the options from --mode on."""
    legend: bool = False
    """Write the classes and their shares beside the overlays."""
    probabilities: bool = False
    """Write probabilities/NAME.npz as well, float32 [class, row, column]."""
    accumulate_on: Annotated[str | None, Metavar("DEVICE")] = None
    """Where the scores of a photograph are kept; cpu saves memory of the GPU."""
    fast: bool = False
    """The fastest form of the model on this device, which may mean half precision, or, with the extra export, OpenVINO
    (the first time it takes a minute); it says what it chose."""
    format: Annotated[tuple[Literal["cvat", "label-studio", "coco", "geojson"], ...], Several] = ()
    """What labelling tools import: all labels once more, as annotations that people correct there."""
    engine: Literal["local", "ray"] = "local"
    """Where the work is done: in this process, or by Ray on every device of a cluster (of this machine alone, where
    RAY_ADDRESS does not name one)."""
    workers: Annotated[Count | None, Metavar("N")] = None
    """With --engine ray: models at work at once; by default one on every GPU, or on every machine where there is none."""
    watch: bool = False
    """Go on with what appears in the folders PATHS, each file when it is whole, until Ctrl-C; what an earlier call has
    done stays."""
    again: bool = False
    """Label everything anew, what an earlier call has done as well."""


@verb(Predict, View)
def predict(own: Predict, given: Given) -> int:
    """Label photographs and videos with a trained model.

    MODEL is the folder of a run, a saved model, a name of the zoo (`nonlocalseg list zoo`), or one on the Hugging Face
    hub. PATHS are files, folders (searched through) and patterns such as "trip/**/*.jpg"; addresses of the same
    (s3://bucket/trip/, https://...); lists (.csv, .tsv, .txt), Parquet files, and tar archives (WebDataset's shards).
    For every photograph three pictures are written below --out, under its own name and at its own size: index/ (class
    numbers, a palette PNG), colour/ and overlay/; areas.csv holds what each class covers in each of them. Images are seen
    as the model says, where no option from --mode on says otherwise. A GeoTIFF (extra
    geo), and a .npy file of uint8 [H, W, 3], may be larger than memory: with --mode stream or slide they are read in
    windows, and their classes go into index/NAME.tif, at the same place on the map, and index/NAME.npy. Where such a call
    is interrupted, the same one goes on.
    A video becomes one of the same times, upright, with its sound: --out FILE (.mp4, .mov, .mkv, .webm), or overlay/ below
    --out. PATHS may be addresses of videos (http, rtsp) and numbers of webcams, which Ctrl-C ends.
    With --watch, PATHS are folders that fill up.
    manifest.csv lists every photograph once, with what became of it. Whatever cannot be labelled is named, there too,
    the others go on, and the exit code is 1. The same call again does only what is not done: what has failed or changed
    since, and everything where model or options are others. Pictures that an earlier prediction wrote are left out.
    --format writes what labelling tools import, of all photographs: annotations.xml for CVAT, label-studio.json,
    annotations/instances_default.json in COCO's form, geojson/NAME.geojson in pixels,
    of GeoTIFFs in the coordinates of the map.

    Examples:
        nonlocalseg predict runs/demo/ann runs/demo/scenes --out labelled
        nonlocalseg predict runs/mine trip/ "more/**/*.png" --out labelled --scales 0.75 1.0 1.25 --flip
        nonlocalseg predict runs/mine aerial.jpg --out labelled --mode slide --crop 769 --accumulate-on cpu
        nonlocalseg predict runs/mine ortho.tif --out labelled --mode stream
        nonlocalseg predict runs/mine sentinel.tif --out labelled --mode slide --crop 512 --bands 4 3 2 --value-range 0 3000
        nonlocalseg predict runs/mine mosaic.npy --out labelled --mode stream
        nonlocalseg predict runs/mine photo.heic --short-side 512 --legend
        nonlocalseg predict mmseg:ann-r101-ade20k photo.jpg --out labelled
        nonlocalseg predict runs/mine trip/ --out labelled --format cvat label-studio
        nonlocalseg predict runs/mine archive/ --out labelled --engine ray --workers 4
        nonlocalseg predict runs/mine clip.mp4 --out clip_overlay.mp4 --every 2 --smooth 0.5
        nonlocalseg predict runs/mine camera/ --out labelled --watch
    """
    from nonlocalseg.data.annotations import check_names
    from nonlocalseg.inference.batch import Labeller, check_bands, sweep_pictures, way_of
    from nonlocalseg.inference.borrowed import settled_view
    from nonlocalseg.inference.clips import split_sources
    from nonlocalseg.inference.sources import Inputs, find_inputs
    from nonlocalseg.lock import alone_in
    from nonlocalseg.runtime import pick_device
    from nonlocalseg.zoo.pretrained import from_pretrained

    if own.setting is not None:
        settled_view(None, None, own.setting, given)  # before anything is looked for
    far = own.engine == "ray"
    if own.workers is not None and not far:
        raise ValueError("--workers: one model labels one photograph after the other; add --engine ray")
    if far and own.device not in (None, "cpu", "cuda"):
        raise ValueError(f"--device: {own.device} is of one machine; with --engine ray give cpu or cuda")
    stills, videos = ([], {}) if own.watch else split_sources(own.paths)
    writing = {"legend": own.legend, "probabilities": own.probabilities}
    of_stills = {**writing, "format": own.format, "again": own.again, "engine": far}
    footage = watched_footage(own, own.out, of_stills) if own.watch else footage_of(own, videos, stills, of_stills)
    target = target_of(own.out, footage, stills, videos)
    folder = check_folder(target.parent if target else own.out)
    where = pick_device("cpu" if far else own.device)
    kept = None if own.accumulate_on is None else pick_device(own.accumulate_on)
    found = find_inputs(stills, folder, own.column) if stills else Inputs([], [], [])
    check_names(item.name for item in found.listed if own.format)
    check_bands(own, found.listed, own.watch)
    network: Any = from_pretrained(own.model).to(where)
    view = settled_view(network, None, own.setting, given)
    if view.mode == "stream":
        from nonlocalseg.inference.tiled import words_of

        say(f"note: {words_of(network, view)}")
    bands = Bands(bands=own.bands, value_range=own.value_range)
    way = way_of(network, view, {**writing, "fast": own.fast, **plain(bands)})
    quick = None if not own.fast else _quick_in_torch if view.mode == "stream" else _quick
    if quick and not far:
        say("fast: getting the model ready ...")
        network = quick(network, where)
        say(f"fast: {', '.join(network.choices)}")
    alone = not far and len(found.listed) == 1
    labeller = Labeller(
        network, view, where, kept, writing, lambda error: describe(error)[0].removeprefix("error: "), bands, not alone
    )
    with nullcontext() if target else alone_in(folder):  # a video leaves the other files of its folder alone
        if not target:
            sweep_pictures(folder)
        if own.watch:

            def film(source: str, name: str) -> int:
                return label_videos(network, view, footage, {source: name}, None, folder, where, kept)

            return watch_folders(own.paths, folder, labeller, way, footage.video, film)
        broken = label_videos(network, view, footage, videos, target, folder, where, kept)
        if stills:
            broken = _label_stills(own, folder, found, labeller, way, quick) or broken
    return FAILED if broken else 0


def _label_stills(own: Predict, folder: Path, found: Inputs, labeller: Labeller, way: Way, quick: Quick | None) -> bool:
    """Label photographs below `folder`, of which no other call writes; whether any has failed."""
    from nonlocalseg.data.annotations import annotate
    from nonlocalseg.images import read_mask
    from nonlocalseg.inference.batch import forget
    from nonlocalseg.inference.manifest import Manifest
    from nonlocalseg.inference.polygons import annotate_maps
    from nonlocalseg.inference.predictor import KINDS
    from nonlocalseg.progress import track

    _tell("no images by their names", found.foreign)
    _tell("pictures that an earlier prediction wrote", found.own)
    if own.again:
        forget(folder, found.listed)
    manifest = Manifest(folder, way, found.listed, own.again)
    if manifest.earlier:
        say(f"{len(manifest.earlier)} of {len(found.listed)} were done earlier (--again does all of them anew)")
    left = [item for item in found.listed if item.input not in manifest.earlier]
    if own.engine == "ray":
        from nonlocalseg.inference.many import label_many

        results = label_many(labeller, left, folder, own.workers, quick, own.device != "cpu")
    else:
        results = (labeller.label(item, folder) for item in left)
    failed: set[str] = set()
    advised = False
    for result in track(results, "predicting", len(left), quiet=not labeller.quiet):
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
        network: Any = labeller.network
        pictures = [name for name in labelled if (folder / KINDS[0] / f"{name}.png").is_file()]  # not of arrays
        masks = ((name, read_mask(folder / KINDS[0] / f"{name}.png")) for name in pictures)
        annotate(folder, own.format, masks, network.classes, network.palette)
        for note in annotate_maps(folder, own.format, labelled, network.classes, network.palette):
            say(f"note: {note}")
    output().print(f"{len(labelled)} of {len(found.listed)} images labelled, in {folder}")
    return bool(failed)


def _quick(network: Any, device: torch.device) -> Any:
    """The fastest form of a model on a device; an actor of Ray asks for it as well."""
    from nonlocalseg.exporting.fast_form import fastest

    return fastest(network, device)


def _quick_in_torch(network: Any, device: torch.device) -> Any:
    """The same, for tiles: their layers run alone, which no other runtime does."""
    from nonlocalseg.models.speed import speed_up

    return speed_up(network, device)


def _tell(what: str, paths: Sequence[Path]) -> None:
    """A line with the names of files that are left out."""
    if paths:
        say(f"left out, {what}: {', '.join(map(str, paths))}")
