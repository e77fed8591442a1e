"""Zip files for the benchmark servers of Cityscapes and ADE20K, checked as the servers check them."""

from __future__ import annotations

import importlib
import io
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import nn

from nonlocalseg.choices import pick
from nonlocalseg.data.ade20k import ADE20K
from nonlocalseg.data.cityscapes import Cityscapes
from nonlocalseg.data.dataset import SegmentationDataset
from nonlocalseg.files import writing
from nonlocalseg.inference.borrowed import settled_view
from nonlocalseg.inference.predictor import predict
from nonlocalseg.labels import check_same_classes
from nonlocalseg.progress import track
from nonlocalseg.runtime import pick_device
from nonlocalseg.view import View
from nonlocalseg.zoo.pretrained import from_pretrained


@dataclass(frozen=True)
class Server:
    """What a benchmark server expects. ids: the label id of each class; file_name: of an image's result;
    max_bytes: of the zip file, None where there is no limit.
    """

    data: type[SegmentationDataset]
    ids: tuple[int, ...]
    file_name: Callable[[str], str]
    max_bytes: int | None = None


SERVERS: dict[str, Server] = {
    # cityscapes-dataset.com: CITY_123456_123456*.png, anywhere in the zip; label ids and no train ids; at most 100 MB
    "cityscapes": Server(Cityscapes, Cityscapes.label_ids, lambda name: f"{name}_gtFine_labelIds.png", 100 * 2**20),
    # sceneparsing.csail.mit.edu: ADE_test_00000001.png for ADE_test_00000001.jpg; 1..150
    "ade20k": Server(ADE20K, ADE20K.label_ids, lambda name: f"{name}.png"),
}


@dataclass(frozen=True)
class Submission:
    """A checked zip file. `miou` is that of cityscapesScripts, for Cityscapes' val where the package is installed."""

    file: Path
    images: int
    miou: float | None = None


def submit(
    benchmark: Literal["cityscapes", "ade20k"],
    model: str | Path | nn.Module,
    out: str | Path,
    *,
    root: str | Path,
    split: Literal["test", "val"] = "test",
    view: View | None = None,
    setting: str | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
    **changes: object,
) -> Submission:
    """Predict every image of a split and write the zip file that the benchmark server takes.

    The file appears only when it is complete and has passed `check_zip`. On Cityscapes' val, cityscapesScripts scores
    it as well where that package is installed. Raises ValueError for a model of other classes, for options that make
    no sense and for an `out` that is no .zip; FileNotFoundError for a missing model or data.

    Args:
        benchmark: cityscapes or ade20k.
        model: folder of a run, a saved model, its name in the zoo or on the hub, or a model.
        out: the zip file.
        root: folder of the data.
        split: test for the server; val to try the format.
        view: how the model sees an image; by default `model.view`.
        setting: a published way to see images, one of `view.VIEWS`, instead of a view.
        device: cpu, cuda, ...; by default a GPU where there is one.
        progress: show progress.
        changes: fields of the view, put over it.
    """
    server = SERVERS[pick("benchmark", benchmark, SERVERS)]
    if Path(out).suffix != ".zip":
        raise ValueError(f"{out}: the server takes a zip file; give a name that ends in .zip")
    if setting is not None:
        settled_view(None, view, setting, changes)  # mistakes are told before anything is read
    where = pick_device(device)
    pictures = server.data(root=root, split=split)
    network: nn.Module = model if isinstance(model, nn.Module) else from_pretrained(model)
    check_same_classes(tuple(getattr(network, "classes", None) or ()), pictures.classes, benchmark)
    network.to(where)
    seen = settled_view(network, view, setting, changes)
    sizes: dict[str, tuple[int, int]] = {}
    with writing(out) as temporary:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:  # PNG is compressed already
            for index in track(range(len(pictures)), "predicting", quiet=not progress):
                image = pictures.read_image(index)
                mask = predict(network, image, seen).mask.numpy()
                name = server.file_name(pictures.name(index))
                sizes[name] = (image.shape[1], image.shape[0])
                archive.writestr(name, _png(np.array(server.ids, np.uint8)[mask]))
        check_zip(temporary, sizes, server.ids, server.max_bytes)
    miou = cityscapes_miou(Path(out), pictures) if benchmark == "cityscapes" and split == "val" else None
    return Submission(Path(out), len(pictures), miou)


def check_zip(
    file: str | Path, sizes: Mapping[str, tuple[int, int]], ids: Sequence[int], max_bytes: int | None = None
) -> None:
    """Read a zip file back: one 8-bit grey PNG for each image, of its size, holding nothing but `ids`.

    sizes: name in the zip -> (width, height). Raises `ValueError` that names the first thing that is wrong.
    """
    if max_bytes is not None and Path(file).stat().st_size > max_bytes:
        raise ValueError(f"{file}: larger than the {max_bytes // 2**20} MB that the server takes")
    try:
        with zipfile.ZipFile(file) as archive:
            held = archive.namelist()
            if len(set(held)) < len(held):
                raise ValueError(f"{file}: holds a name twice")
            if wrong := sorted(sizes.keys() ^ set(held)):
                raise ValueError(f"{file}: {wrong[0]} is {'missing' if wrong[0] in sizes else 'not expected'}")
            for name in held:
                _check_result(f"{file}: {name}", archive.read(name), sizes[name], ids)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{file}: a damaged zip file ({error})") from None


def _check_result(name: str, content: bytes, size: tuple[int, int], ids: Sequence[int]) -> None:
    with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
        if picture.mode != "L":
            raise ValueError(f"{name}: is {picture.mode}, expected 8-bit grey")
        if picture.size != size:
            raise ValueError(f"{name}: is {picture.size}, expected {size} (width, height)")
        if unknown := sorted(set(np.unique(np.asarray(picture)).tolist()) - set(ids)):
            raise ValueError(f"{name}: holds {unknown[0]}, which is no label id of a class")


def cityscapes_miou(file: Path, data: SegmentationDataset) -> float | None:
    """The mIoU that cityscapesScripts finds for a zip file of val; None where the package is not installed.

    Raises `FileNotFoundError` where `data` has no `labelIds.png`, which the official script compares with.
    """
    try:
        official = importlib.import_module("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    except ImportError:
        return None
    truths = [str(pair.label) for pair in data.pairs]
    if wrong := [truth for truth in truths if not truth.endswith("_labelIds.png")]:
        raise FileNotFoundError(f"{wrong[0]}: cityscapesScripts compares with labelIds.png; run `prepare cityscapes`")
    options = {**vars(official.args), "evalInstLevelScore": False, "JSONOutput": False, "quiet": True}
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(file) as archive:
            archive.extractall(folder)
        results = [str(Path(folder) / SERVERS["cityscapes"].file_name(pair.name)) for pair in data.pairs]
        found = official.evaluateImgLists(results, truths, SimpleNamespace(**options))
    return float(found["averageScoreClasses"])


def _png(ids: np.ndarray) -> bytes:
    """uint8 [H, W] -> the bytes of a grey PNG."""
    buffer = io.BytesIO()
    Image.fromarray(ids).save(buffer, "PNG")
    return buffer.getvalue()
