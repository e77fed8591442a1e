"""Checkpoint files of other projects: their tensors and plain values, never their code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from nonlocalseg.models.storage import read_weights


class Inert:
    """In the place of an object of another project: it takes what it is given and does nothing."""

    def __new__(cls, *args: object, **kwargs: object) -> Inert:
        return super().__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None:
        """Nothing is kept."""

    def __setstate__(self, state: object) -> None:
        """Nothing is kept."""


# What mmengine's Runner writes beside the weights: its log (HistoryBuffer) and numpy's numbers in it.
_NUMPY = ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")
INERT_NAMES = (
    "mmengine.logging.history_buffer.HistoryBuffer",
    "mmengine.config.config.ConfigDict",
    "mmengine.config.config.Config",
    "numpy.ndarray",
    "numpy.dtype",
    *(f"numpy.{core}.{name}" for core in ("core", "_core") for name in _NUMPY),
    *(f"numpy.dtypes.{kind}DType" for kind in ("Float64", "Float32", "Int64", "Int32", "Bool")),
    "_codecs.encode",
    "builtins.getattr",
)


def read_checkpoint(path: str | Path) -> dict[str, object]:
    """The content of a `.pth`, `.pt`, `.ckpt` or `.safetensors` file; tensors and plain values only, never code.

    The log that mmengine's Runner keeps in its checkpoints is left out. Raises `FileNotFoundError`, and ValueError in
    one line for a file that is no checkpoint or holds other objects.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    if path.suffix == ".safetensors":
        return dict(read_weights(path))
    try:
        with torch.serialization.safe_globals([(Inert, name) for name in INERT_NAMES]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path} is no readable checkpoint of tensors ({_reason(error)})") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a state dict")
    _check_sizes(content, path)
    return {str(name): item for name, item in content.items()}


def unwrap(checkpoint: Mapping[str, object]) -> tuple[dict[str, Tensor], dict[str, object]]:
    """The bare state dict (wrappers and a `module.` prefix removed), and meta data."""
    meta = checkpoint.get("meta", {})
    inner: object = checkpoint
    for wrapper in ("state_dict", "model_state_dict", "model", "net"):
        if isinstance(inner, Mapping) and isinstance(inner.get(wrapper), Mapping):
            inner = inner[wrapper]
    state = {}
    for key, value in inner.items() if isinstance(inner, Mapping) else ():
        if isinstance(value, Tensor):
            name = str(key)
            while name.startswith("module."):
                name = name[len("module.") :]
            state[name] = value
    if not state:
        raise ValueError(
            "the checkpoint holds no tensors: expected a state dict, or a dict with one under 'state_dict'"
        )
    return state, dict(meta) if isinstance(meta, Mapping) else {}


def _check_sizes(content: Mapping[object, object], path: Path) -> None:
    """ValueError where a tensor repeats few numbers, so that the network it asks for has no bound."""
    for name, item in content.items():
        if isinstance(item, Mapping):
            _check_sizes(item, path)
        elif isinstance(item, Tensor) and item.layout != torch.strided:
            raise ValueError(f"{path}: {name} is {item.layout}, which no network here has: it is no checkpoint")
        elif isinstance(item, Tensor) and item.numel() * item.element_size() > item.untyped_storage().nbytes():
            raise ValueError(f"{path}: {name} is {list(item.shape)}, more than the file holds: it is no checkpoint")


def _reason(error: Exception) -> str:
    """The error in a few plain words: torch's own hold colours, and advice to trust the file."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    refused = re.search(r"Unsupported (?:global|class|operand)\S*:? (?:GLOBAL )?(\S+)", text)
    if refused is None:
        refused = re.search(r"blocklisted (?:module|function)?\s*(\S+)", text)
    if refused is not None:
        return f"it holds a Python object, {refused[1]}: save its state dict alone and try again"
    first = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    return f"{''.join(c for c in first if c.isprintable())[:120]}: is it truncated?"
