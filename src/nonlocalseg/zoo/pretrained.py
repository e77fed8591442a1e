"""from_pretrained(): a trained model by its folder, by its name on the hub, or by its name in the zoo."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

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
) -> Segmenter:
    """The model saved in a folder (of a model, or of a run), on the hub ("hf:owner/name"; "owner/name" does where no folder
    is called owner), or in the zoo ("mmseg:ann-r101-ade20k", `nonlocalseg list zoo`); in evaluation mode.

    `revision`, or "hf:owner/name@revision", is a branch, a tag or a commit on the hub, whose models are kept in its cache:
    from there they come without a network, and with HF_HUB_OFFLINE=1 it is not asked.

    With `classes`, the classifiers are made anew for these names, with their `palette` and `label_map`, and every other
    weight is kept. The zoo's files come from `zoo_mirror`, a folder or an address, where one is given. Raises
    `FileNotFoundError` where there is no model, `ConnectionError` where it cannot be fetched, `ValueError` for a config
    or weights that do not fit.
    """
    if str(source).startswith(ZOO):
        if revision is not None:
            raise ValueError(f"revision: {source} is of the zoo, whose files have none; leave it out")
        from nonlocalseg.zoo.loading import load  # it needs the data sets and the tables of keys

        model = load(str(source), zoo_mirror)
    else:
        model = load_saved(source, revision)
    return model if classes is None else with_classes(model, classes, palette, label_map)
