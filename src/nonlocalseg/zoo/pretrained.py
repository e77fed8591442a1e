"""from_pretrained(): a trained model by its folder or exported file, or by its name on the hub or in the zoo."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nonlocalseg.exporting.formats import is_exported
from nonlocalseg.exporting.loading import ExportedModel, load_exported
from nonlocalseg.labels import LabelMap, Palette
from nonlocalseg.models.hub import load_saved, with_classes
from nonlocalseg.models.segmenter import Segmenter

ZOO = ("mmseg:", "official:")
"""What names of the zoo begin with, so that they are never looked for anywhere else."""


def from_pretrained(
    source: str | Path,
    classes: Sequence[str] | None = None,
    palette: Palette | None = None,
    label_map: LabelMap | None = None,
    zoo_mirror: str | None = None,
    revision: str | None = None,
) -> Segmenter | ExportedModel:
    """The model saved in a folder (of a model, or of a run), in a file that `export` wrote (.onnx, .xml, .pt2), on the hub
    ("hf:owner/name"; "owner/name" does where no folder is called owner), or in the zoo ("mmseg:ann-r101-ade20k",
    `nonlocalseg list zoo`); in evaluation mode.

    An exported file answers scores and knows its classes, but there is no network to train or to look into: for what
    needs one there is `pretrained_network`.

    `revision`, or "hf:owner/name@revision", is a branch, a tag or a commit on the hub, whose models are kept in its cache:
    from there they come without a network, and with HF_HUB_OFFLINE=1 it is not asked.

    With `classes`, the classifiers are made anew for these names, with their `palette` and `label_map`, and every other
    weight is kept. The zoo's files come from `zoo_mirror`, a folder or an address, where one is given. Raises
    `FileNotFoundError` where there is no model, `ConnectionError` where it cannot be fetched, `ValueError` for a config
    or weights that do not fit.
    """
    if is_exported(source) and not Path(source).is_dir():
        if classes is not None:
            raise ValueError(f"{source} is an exported file, whose classes are fixed: give the folder of its model")
        return load_exported(source)
    return pretrained_network(source, classes, palette, label_map, zoo_mirror, revision)


def pretrained_network(
    source: str | Path,
    classes: Sequence[str] | None = None,
    palette: Palette | None = None,
    label_map: LabelMap | None = None,
    zoo_mirror: str | None = None,
    revision: str | None = None,
) -> Segmenter:
    """As `from_pretrained`, but for exported files, which hold no network: ValueError that says so."""
    if is_exported(source) and Path(source).is_file():
        raise ValueError(f"{source} is an exported file, without the network that this needs: give its model's folder")
    if str(source).startswith(ZOO):
        if revision is not None:
            raise ValueError(f"revision: {source} is of the zoo, whose files have none; leave it out")
        from nonlocalseg.zoo.loading import load  # it needs the data sets and the tables of keys

        model = load(str(source), zoo_mirror)
    else:
        model = load_saved(source, revision)
    return model if classes is None else with_classes(model, classes, palette, label_map)
