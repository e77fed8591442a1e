"""The verb that takes checkpoints from other projects, and gives them back: convert."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nonlocalseg.cli.terminal import output
from nonlocalseg.files import check_folder

if TYPE_CHECKING:
    from nonlocalseg.data.dataset import Colour


def convert(
    source_file: str,
    *,
    out: str,
    source: Literal["mmseg", "ann-official", "gald-official"] | None = None,
    to: Literal["mmseg"] | None = None,
    classes_file: str | None = None,
    align_corners: bool | None = None,
) -> None:
    """Turn a checkpoint of another project into a model of this one, or a model into such a checkpoint.

    With --source, SOURCE_FILE is a checkpoint (.pth, .pt, .ckpt or .safetensors) and --out the folder of the new model.
    The network, its widths and the number of classes are found out; the class names, too, where the checkpoint has
    them. With --to, it is a model folder and --out the .pth file to write: ann in the mmseg wiring only.

    Args:
        source_file: the checkpoint, or the folder of a model.
        out: folder of the model, or file of the checkpoint, to write.
        source: project that the checkpoint comes from.
        to: project that the checkpoint is for.
        classes_file: class names, one a line, or a classes.yaml, which also has colours.
        align_corners: how the model was trained to resize; by default as its project does.

    Examples:
        nonlocalseg convert ann_r50-d8_512x1024.pth --source mmseg --out models/ann-cityscapes
        nonlocalseg convert gald.pth --source gald-official --classes-file names.txt --out models/gald
        nonlocalseg convert runs/mine --to mmseg --out ann.pth
    """
    if (source is None) == (to is None):
        raise ValueError("give either --source (a checkpoint of another project) or --to (write one for it)")
    if to is not None:
        _give(source_file, out)
    else:
        assert source is not None
        _take(source_file, out, source, classes_file, align_corners)


def _take(file: str, out: str, source: str, classes_file: str | None, align_corners: bool | None) -> None:
    from nonlocalseg.models.converting import convert, read_checkpoint

    folder = check_folder(out)
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"--out: {folder} is not empty; choose another folder")
    classes, palette = _names(classes_file) if classes_file is not None else (None, None)
    model = convert(read_checkpoint(file), source, classes, palette, align_corners)
    model.save_pretrained(folder)
    assert model.config is not None
    count = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    output().print(
        f"{model.config['model']} on {model.config['backbone']}, {model.num_classes} classes, "
        f"{count:.1f} M parameters, in {folder}"
    )


def _give(model: str, out: str) -> None:
    import torch

    from nonlocalseg.files import writing
    from nonlocalseg.models.converting import to_mmseg
    from nonlocalseg.models.hub import from_pretrained

    path = Path(out).expanduser()
    if path.suffix not in (".pth", ".pt"):
        raise ValueError(f"--out: {out} is not the name of a checkpoint; let it end in .pth")
    check_folder(path.parent)
    content = to_mmseg(from_pretrained(model))
    with writing(path) as temporary:
        torch.save(content, temporary)
    output().print(f"written {path} for mmsegmentation")


def _names(path: str) -> tuple[tuple[str, ...], tuple[Colour, ...] | None]:
    """Class names, and colours where the file has them."""
    from nonlocalseg.data.folder import read_classes

    if Path(path).suffix in (".yaml", ".yml"):
        classes, palette, _ = read_classes(Path(path))
        return classes, palette
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return tuple(line.strip() for line in lines if line.strip()), None
