"""The verb that takes checkpoints from other projects, and gives them back: convert."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated, Literal

from nonlocalseg.cli.options import Given, verb
from nonlocalseg.cli.terminal import output
from nonlocalseg.files import check_folder
from nonlocalseg.labels import Colour
from nonlocalseg.values import Metavar, Positional, value


@value
class Convert:
    """The verb's own options."""

    source_file: Annotated[str, Positional()]
    """The checkpoint, or the folder of a model."""
    out: Annotated[str, Metavar("PATH")]
    """Folder of the model, or file of the checkpoint, to write."""
    source: Literal["mmseg", "ann-official", "gald-official"] | None = None
    """Project that the checkpoint comes from."""
    to: Literal["mmseg"] | None = None
    """Project that the checkpoint is for."""
    classes_file: Annotated[str | None, Metavar("FILE")] = None
    """Class names, one a line, or a classes.yaml, which also has colours."""
    align_corners: bool | None = None
    """How the model was trained to resize; by default as its project does."""

    def __post_init__(self) -> None:
        if (self.source is None) == (self.to is None):
            raise ValueError("give either --source (a checkpoint of another project) or --to (write one for it)")


@verb(Convert)
def convert(own: Convert, given: Given) -> None:
    """Turn a checkpoint of another project into a model of this one, or a model into such a checkpoint.

    With --source, SOURCE_FILE is a checkpoint (.pth, .pt, .ckpt or .safetensors) and --out the folder of the new model.
    The network is built as mmsegmentation's config in the checkpoint says, and what our networks lack is refused by
    name; where there is no config, shapes decide, and what they cannot tell is assumed and said. Class names come from
    the checkpoint where it has them. With --to, it is a model folder and --out the .pth file to write, beside which a
    .py of the same name holds mmsegmentation's config: models in the mmseg wiring whose head is known there.

    Examples:
        nonlocalseg convert ann_r50-d8_512x1024.pth --source mmseg --out models/ann-cityscapes
        nonlocalseg convert gald.pth --source gald-official --classes-file names.txt --out models/gald
        nonlocalseg convert runs/mine --to mmseg --out ann.pth
    """
    if own.source is None:
        _give(own.source_file, own.out)
    else:
        _take(own, own.source)


def _take(own: Convert, source: str) -> None:
    from nonlocalseg.conversion.checkpoints import convert
    from nonlocalseg.conversion.described import Assumed
    from nonlocalseg.conversion.reading import read_checkpoint
    from nonlocalseg.models.cost import parameter_count

    folder = check_folder(own.out)
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"--out: {folder} is not empty; choose another folder")
    classes, palette = _names(own.classes_file) if own.classes_file is not None else (None, None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", Assumed)
        model = convert(read_checkpoint(own.source_file), source, classes, palette, own.align_corners)
    for note in caught:
        if issubclass(note.category, Assumed):
            output().print(f"note: {note.message}", markup=False)
    model.save_pretrained(folder)
    assert model.config is not None
    output().print(
        f"{model.config.model} on {model.config.backbone}, {model.num_classes} classes, "
        f"{parameter_count(model) / 1e6:.1f} M parameters, in {folder}"
    )


def _give(model: str, out: str) -> None:
    import torch

    from nonlocalseg.conversion.mmseg_writing import to_mmseg
    from nonlocalseg.files import write_text, writing
    from nonlocalseg.zoo.pretrained import pretrained_network

    path = Path(out).expanduser()
    if path.suffix not in (".pth", ".pt"):
        raise ValueError(f"--out: {out} is not the name of a checkpoint; let it end in .pth")
    check_folder(path.parent)
    content, config = to_mmseg(pretrained_network(model)), path.with_suffix(".py")
    text = str(content["meta"]["cfg"])
    if config.exists() and config.read_text(encoding="utf-8") != text:
        raise ValueError(f"--out: {config}, where the config would stand, exists already; choose another name")
    write_text(config, text)
    with writing(path) as temporary:
        torch.save(content, temporary)
    output().print(f"written {path} for mmsegmentation, and its config {config}")


def _names(path: str) -> tuple[tuple[str, ...], tuple[Colour, ...] | None]:
    """Class names, and colours where the file has them."""
    from nonlocalseg.data.class_files import read_classes

    if Path(path).suffix in (".yaml", ".yml"):
        classes, palette, _ = read_classes(Path(path))
        return classes, palette
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return tuple(line.strip() for line in lines if line.strip()), None
