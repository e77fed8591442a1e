"""`fastest()`: what --fast takes: the network as `speed_up` makes it, run by OpenVINO where that is installed and faster.

Whether OpenVINO is faster than torch in float32 depends on the CPU (`nonlocalseg benchmark export`), so it is tried once. In
bfloat16, and on GPUs, torch is taken: which layers are rounded is decided here, not by a runtime.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor

from nonlocalseg.exporting.checking import TOLERANCE, compare, timed, tried_sizes
from nonlocalseg.exporting.form import Form
from nonlocalseg.exporting.graph import Graph, trace
from nonlocalseg.exporting.openvino_file import open_openvino, write_openvino
from nonlocalseg.files import cache_folder, write_text
from nonlocalseg.models.segmenter import Segmenter
from nonlocalseg.models.speed import SpedUp, speed_up
from nonlocalseg.values import plain

NEEDED = ("openvino", "onnx", "onnxscript")
_MAKING = "making-"


class CoarseGraph(Graph):
    """Answers on the head's own grid, as `Segmenter.coarse`: what is done with the scores then may need no more."""

    def logits(self, images: Tensor) -> Tensor:
        return self.network.coarse(images)[0]


def fastest(model: Segmenter, device: str | torch.device = "cpu") -> SpedUp:
    """`speed_up(model, device)`; where it would be in float32 on a CPU and the extra export is installed, run by OpenVINO.

    For that the network is exported once, within 1e-4 of its largest logit, timed beside torch, and kept in the user's
    cache folder (`$NONLOCALSEG_CACHE`), by its weights, its config and all versions. Where it cannot be exported, or is no
    faster, torch runs it, and `choices` says so. Raises ValueError for what is no network of this library.
    """
    fast = speed_up(model, device)
    ready = all(importlib.util.find_spec(name) is not None for name in NEEDED)
    if torch.device(device).type != "cpu" or fast.precision != torch.float32 or model.config is None or not ready:
        return fast
    try:
        run = _kept(model, fast)
    except (ValueError, OSError) as error:
        reason = str(error).partition("\n")[0]
        return SpedUp(fast.model, fast.precision, False, (*fast.choices, f"in torch, not in OpenVINO: {reason}"))
    version = importlib.metadata.version("openvino")
    return SpedUp(fast.model, fast.precision, False, ("folded", f"OpenVINO {version} in float32"), run)


def _kept(model: Segmenter, fast: SpedUp) -> Callable[[Tensor], Tensor]:
    """The network in OpenVINO, from the cache, where it is put if it is not there, or cannot be read. Raises ValueError
    where it was, or is now, no faster than in torch."""
    folder = cache_folder() / "fast" / _key(model)
    path, slower = folder / "network.xml", folder / "slower.txt"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if slower.is_file():
            raise ValueError(slower.read_text(encoding="utf-8"))
        if path.is_file():
            try:
                return open_openvino(path).run
            except (ValueError, FileNotFoundError):
                path.unlink()
        _write(model, path)
        run = open_openvino(path).run
        with torch.no_grad():
            there, here = timed(run, Form()), timed(lambda images: fast.coarse(images)[0], Form())
        if there.seconds < here.seconds:
            return run
        write_text(
            slower, f"{there.seconds:.2g} s there, {here.seconds:.2g} s here, for {here.height}x{here.width} pixels"
        )
        for suffix in (".bin", ".xml"):
            path.with_suffix(suffix).unlink()
        raise ValueError(slower.read_text(encoding="utf-8"))


def _write(model: Segmenter, path: Path) -> None:
    for left in path.parent.glob(f"{_MAKING}*"):  # by a process that was killed; the lock is ours
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_MAKING, dir=path.parent) as folder:
        made = Path(folder) / path.name
        write_openvino(trace(CoarseGraph.of(model, Form())), made, half=False)
        run, plain_graph = open_openvino(made).run, CoarseGraph.of(model, Form(fold=False))
        tried = [compare(run, plain_graph, *size) for size in tried_sizes(Form())]
        worst = max((one.error for one in tried if one is not None), default=0)
        if worst > TOLERANCE["float32"]:
            raise ValueError(f"it differs by {worst:.1e} of the largest logit")
        for suffix in (".bin", ".xml"):
            os.replace(made.with_suffix(suffix), path.with_suffix(suffix))


def _key(model: Segmenter) -> str:
    """Other weights, options or versions are another network."""
    from nonlocalseg import __version__

    versions = {"nonlocalseg": __version__, "torch": torch.__version__}
    versions |= {name: importlib.metadata.version(name) for name in NEEDED}
    found = hashlib.sha256(json.dumps([versions, plain(model.config), model.folded], sort_keys=True).encode())
    for name, tensor in model.state_dict().items():
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()[:32]
