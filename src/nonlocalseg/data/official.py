"""What the official downloads have in common: a part that is missing, lists of image names, MATLAB files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from nonlocalseg.data.dataset import Pair

Task = tuple[Path, Callable[..., Any], tuple[Any, ...]]
"""A step of `prepare`: the file it makes, the function that writes it, the function's arguments after the file."""


def inside(root: Path, *folders: str) -> Path:
    """The first of `root/folder` that exists, otherwise `root`: the folder an archive makes, or the one it went to."""
    return next((root / folder for folder in folders if (root / folder).is_dir()), root)


def require(root: Path, candidates: Iterable[str], source: str) -> Path:
    """The first of `root/candidate` that exists.

    Raises `FileNotFoundError` that names the first candidate and `source`, where people get it.
    """
    candidates = list(candidates)
    for candidate in candidates:
        if (root / candidate).exists():
            return root / candidate
    raise FileNotFoundError(f"{root / candidates[0]}: missing; get {source}")


def read_list(path: Path) -> list[str]:
    """The first word of every line of a list of images, without folders and suffix."""
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    return [Path(line.split()[0]).stem for line in lines if line.strip()]


def match(images: Mapping[str, Path], labels: Mapping[str, Path]) -> tuple[list[Pair], list[Path]]:
    """Pairs of the names that both have, sorted; and the files of the others."""
    both = sorted(images.keys() & labels.keys())
    alone = [images[name] for name in sorted(images.keys() - labels.keys())]
    alone += [labels[name] for name in sorted(labels.keys() - images.keys())]
    return [Pair(name, images[name], labels[name]) for name in both], alone


def match_listed(
    names: Iterable[str], images: Mapping[str, Path], labels: Mapping[str, Path], listed_in: Path
) -> tuple[list[Pair], list[Path]]:
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


def by_suffix(folder: Path, pattern: str, suffix: str) -> dict[str, Path]:
    """File name without `suffix` -> file, for the files below `folder` that fit `pattern` and end so."""
    return {file.name[: -len(suffix)]: file for file in folder.glob(pattern) if file.name.endswith(suffix)}


def read_mat(path: Path, *fields: str) -> dict[str, np.ndarray]:
    """Those of the fields that a MATLAB file (before 7.3) has. Raises `ValueError` for a broken file."""
    try:
        content = scipy.io.loadmat(str(path), variable_names=list(fields))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except Exception as error:  # scipy lets errors of struct, zlib and its own reader through
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path}: not a MATLAB file, or a damaged one ({reason}); unpack it again") from None
    return {field: content[field] for field in fields if field in content}


def field_of(path: Path, field: str) -> np.ndarray:
    """One field of a MATLAB file. Raises `ValueError` where it is missing."""
    content = read_mat(path, field)
    if field not in content:
        raise ValueError(f"{path}: has no field {field}; is it a label file of this data set?")
    return content[field]
