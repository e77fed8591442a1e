"""What the layouts of data sets have in common: folders that may be missing, lists of image names, MATLAB files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

Task = tuple[Path, Callable[..., Any], tuple[Any, ...]]
"""A step of `prepare`: the file it makes, the function that writes it, the function's arguments after the file."""


def inside(root: Path, *folders: str) -> Path:
    """The first of `root/folder` that exists, otherwise `root`: the folder an archive makes, or the one it went to."""
    return next((root / folder for folder in folders if (root / folder).is_dir()), root)


def subfolder(root: Path, *names: str) -> Path:
    """`root/names[0]/...`, which must exist. Raises `FileNotFoundError`."""
    folder = root.joinpath(*names)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; the data set needs {'/'.join(names)} in its root")
    return folder


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


def read_mat(path: Path, *fields: str) -> dict[str, np.ndarray]:
    """Those of the fields that a MATLAB file (before 7.3) has. Raises `ValueError` for a broken file."""
    import scipy.io

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
