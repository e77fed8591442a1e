"""Which image belongs to which label image: by name, by suffix, or as a list says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nonlocalseg.images import images_below

_TRIED, _MOST = 5, 0.8  # names whose counterparts are looked for, and the share of names that must then fit


@dataclass(frozen=True)
class Pair:
    """One image and its label image, where it has one; `name` is unique in its split and usable as a file name."""

    name: str
    image: Path
    label: Path | None


Matched = tuple[list[Pair], list[Path]]
"""Pairs, and the files that lack a partner."""


def join(parts: Iterable[Matched]) -> Matched:
    """The pairs and the lonely files of several parts, one part after another."""
    pairs: list[Pair] = []
    unmatched: list[Path] = []
    for found, alone in parts:
        pairs += found
        unmatched += alone
    return pairs, unmatched


def unlabelled(images: Iterable[tuple[str, Path]]) -> Matched:
    """Images, each with its name, that have no labels."""
    return [Pair(name, path, None) for name, path in images], []


def match(images: Mapping[str, Path], labels: Mapping[str, Path]) -> Matched:
    """Pairs of the names that both have, sorted; and the files of the others."""
    both = sorted(images.keys() & labels.keys())
    alone = [images[name] for name in sorted(images.keys() - labels.keys())]
    alone += [labels[name] for name in sorted(labels.keys() - images.keys())]
    return [Pair(name, images[name], labels[name]) for name in both], alone


def match_listed(
    names: Iterable[str], images: Mapping[str, Path], labels: Mapping[str, Path], listed_in: Path
) -> Matched:
    """`match` for the names of a list. Raises `FileNotFoundError` for a name that has neither image nor label."""
    names = list(names)
    for name in names:
        if name not in images and name not in labels:
            raise FileNotFoundError(
                f"{listed_in}: lists {name}, which has neither image nor label; unpack all archives"
            )
    return match(
        {name: images[name] for name in names if name in images},
        {name: labels[name] for name in names if name in labels},
    )


def match_folders(image_root: Path, label_root: Path) -> Matched:
    """Images below two folders whose paths in them agree but for the suffix.

    Where none agrees but the names on one side are those of the other with the same words before or after them, as in
    a.jpg and a_mask.png, those are paired; `spell_names` says so. Raises `ValueError` where two files of one folder
    share a stem.
    """
    images, labels = _by_stem(image_root), _by_stem(label_root)
    if not images.keys() & labels.keys():
        if added := _added(images, labels):
            labels = {_without(name, *added): path for name, path in labels.items()}
        elif added := _added(labels, images):
            images = {_without(name, *added): path for name, path in images.items()}
    found, alone = match(images, labels)
    return [Pair(pair.name.replace("/", "__"), pair.image, pair.label) for pair in found], alone


def _added(short: Iterable[str], long: Iterable[str]) -> tuple[str, str] | None:
    """What stands before and after the names of `short` in those of `long`; None where that fits not most of them."""
    short, long = sorted(short), set(long)
    candidates: set[tuple[str, str]] = set()
    for one in short[:_TRIED]:
        folder, _, stem = one.rpartition("/")
        for name in long:
            other, _, longer = name.rpartition("/")
            if other == folder and stem in longer:
                before, _, after = longer.partition(stem)
                candidates.add((before, after))
    fits = {found: sum(_with(one, *found) in long for one in short) for found in sorted(candidates)}
    best = max(fits, key=lambda found: fits[found], default=None)
    return best if best and fits[best] >= _MOST * min(len(short), len(long)) else None


def _with(name: str, before: str, after: str) -> str:
    folder, slash, stem = name.rpartition("/")
    return f"{folder}{slash}{before}{stem}{after}"


def _without(name: str, before: str, after: str) -> str:
    """The name that `_with` was given; a name that it did not make stays."""
    folder, slash, stem = name.rpartition("/")
    fits = stem.startswith(before) and stem.endswith(after) and len(stem) > len(before) + len(after)
    return f"{folder}{slash}{stem[len(before) : len(stem) - len(after)]}" if fits else name


def spell_names(pairs: Iterable[Pair]) -> tuple[str, ...]:
    """One sentence where images and labels of `match_folders` are called differently, none otherwise."""
    pair = next((pair for pair in pairs if pair.label), None)
    if pair is None or pair.label is None or pair.label.stem == pair.image.stem:
        return ()
    return (
        f"labels are called differently: {pair.label.name} was taken for the label of {pair.image.name}, and so on",
    )


def match_prepared(root: Path, part: str, ending: str = ".png") -> Matched | None:
    """The pairs of `img_dir/PART/NAME.png` and `ann_dir/PART/NAME<ending>`, as mmsegmentation's converters leave data
    sets; None where they are not there, and images without labels where only `img_dir/PART` is."""
    pictures, labels = root / "img_dir" / part, root / "ann_dir" / part
    if not pictures.is_dir():
        return None
    found = by_suffix(pictures, "*", ".png")
    annotated = by_suffix(labels, "*", ending) if labels.is_dir() else {}
    return match(found, annotated) if annotated else unlabelled(sorted(found.items()))


def by_suffix(folder: Path, pattern: str, suffix: str) -> dict[str, Path]:
    """File name without `suffix` -> file, for the files below `folder` that fit `pattern` and end so."""
    return {file.name[: -len(suffix)]: file for file in folder.glob(pattern) if file.name.endswith(suffix)}


def _by_stem(folder: Path) -> dict[str, Path]:
    """Path below `folder` without suffix -> image file."""
    found: dict[str, Path] = {}
    for file in images_below(folder):
        key = file.relative_to(folder).with_suffix("").as_posix()
        if key in found:
            raise ValueError(f"{file}: has the same name as {found[key].name}; rename or remove one of them")
        found[key] = file
    return found
