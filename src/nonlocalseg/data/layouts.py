"""What the layouts of data sets have in common: folders that may be missing, lists of names, MATLAB and JSON files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
from annotated_types import Ge, Le
from pydantic import TypeAdapter, ValidationError

from nonlocalseg.files import read_text

T = TypeVar("T")

Coordinate = Annotated[float, Ge(-1e6), Le(1e6)]
"""A place in a picture, or beside it, in pixels."""
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
    lines = read_text(path).splitlines()
    return [Path(line.split()[0]).stem for line in lines if line.strip()]


def read_json(path: Path, form: type[T], what: str) -> T:
    """The content of a JSON file, checked to be of the form `form` (a `TypedDict`, where whole).

    Raises `ValueError` that names the file, the place in it and what is wrong there; `what` says what it should be.
    """
    try:
        return TypeAdapter(form).validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        reason = " ".join(f"{place}: {first['msg']}".removeprefix(": ").split())
        raise ValueError(f"{path}: not {what} ({reason}); get it again") from None


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


def check_stored(path: Path, label: np.ndarray) -> np.ndarray:
    """`label`, if it is whole numbers [H, W]. Raises `ValueError` otherwise: a MATLAB file may hold anything."""
    if label.dtype.kind == "f" and np.isfinite(label).all() and not (label % 1).any():
        label = label.astype(np.int64)  # MATLAB's usual kind of number
    if label.ndim != 2 or label.dtype.kind not in "iub":
        raise ValueError(f"{path}: holds {label.dtype} {list(label.shape)} where a label is whole numbers [H, W]")
    return label


def field_of(path: Path, field: str) -> np.ndarray:
    """One field of a MATLAB file. Raises `ValueError` where it is missing."""
    content = read_mat(path, field)
    if field not in content:
        raise ValueError(f"{path}: has no field {field}; is it a label file of this data set?")
    return content[field]
