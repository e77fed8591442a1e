"""Models on disk and on the Hugging Face hub: `config.json` beside `model.safetensors`, saved, loaded and pushed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from nonlocalseg.files import write_text, writing
from nonlocalseg.models.folding import fold_in_place
from nonlocalseg.models.presets import FORMAT_VERSION, MODELS, Palette, build, class_names, full_palette
from nonlocalseg.models.segmenter import Segmenter
from nonlocalseg.models.wirings import known

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def save_pretrained(model: Segmenter, folder: str | Path) -> Path:
    """Write `config.json` and `model.safetensors` to `folder`, weights first, so that a folder with a config is whole.

    Raises `ValueError` for a Segmenter that was assembled by hand: its structure is written nowhere.
    """
    from safetensors.torch import save_file

    if model.config is None:
        raise ValueError("this Segmenter was assembled by hand and cannot be saved: build it with create_model()")
    folder = Path(folder)
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    with writing(folder / WEIGHTS) as temporary:
        save_file(state, temporary)
    write_text(folder / CONFIG, json.dumps(model.config, indent=1) + "\n")
    return folder


def from_pretrained(
    source: str | Path, classes: Sequence[str] | None = None, palette: Palette | None = None
) -> Segmenter:
    """The model saved in a folder (of a model, or of a run), or on the hub as "owner/name"; in evaluation mode.

    With `classes`, the classifiers are made anew for these names and every other weight is kept. Raises
    `FileNotFoundError` where there is no model, `ValueError` for a config or weights that do not fit.
    """
    folder = _folder(source)
    config = read_config(folder)
    if classes is not None:
        config["classes"] = class_names(None, classes)
        config["palette"] = full_palette(palette, len(classes))
    model = build({key: value for key, value in config.items() if key not in ("options", "folded")}, config["options"])
    if config.get("folded"):
        fold_in_place(model.eval())
    load_weights(model, read_weights(folder / WEIGHTS), folder / WEIGHTS, fresh_classifiers=classes is not None)
    return model.eval()


def push_to_hub(model: Segmenter, repository: str, private: bool = False) -> str:
    """Upload the model as "owner/name" with the token of `huggingface-cli login`; returns its address."""
    import tempfile

    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(model, folder)
        api = HfApi()
        address = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder)
    return str(address)


def read_config(folder: Path) -> dict[str, Any]:
    """The checked content of `config.json`."""
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}): copy the model folder again") from error
    needed = {"format_version", "model", "backbone", "classes", "palette", "mean", "std", "options"}
    missing = sorted(needed - config.keys()) if isinstance(config, dict) else sorted(needed)
    if missing:
        raise ValueError(f"{path} lacks {missing[0]!r}: it was not written by this library")
    if config["format_version"] > FORMAT_VERSION:
        raise ValueError(
            f"{path} has format {config['format_version']}, this version reads up to {FORMAT_VERSION}: "
            "upgrade nonlocalseg"
        )
    known(f"model in {path}", config["model"], MODELS)
    return config


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; `ValueError` in one line where it is corrupt."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is corrupt ({error}): copy or save the model again") from error


def load_weights(model: Segmenter, state: dict[str, Tensor], source: object, fresh_classifiers: bool = False) -> None:
    """Load `state` strictly; with `fresh_classifiers` the classifiers keep their new values. `source` names the file."""
    expected = model.state_dict()
    if fresh_classifiers:
        own = {name: value for name, value in expected.items() if _classifies(name)}
        state = {name: value for name, value in state.items() if not _classifies(name)} | own
    missing, extra = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    wrong = [name for name in sorted(expected.keys() & state.keys()) if expected[name].shape != state[name].shape]
    if missing or extra or wrong:
        shapes = [f"{name} {list(state[name].shape)} instead of {list(expected[name].shape)}" for name in wrong]
        parts = [("missing", missing), ("unknown", extra), ("wrong shape", shapes)]
        reasons = "; ".join(f"{what}: {', '.join(names[:3])}" for what, names in parts if names)
        raise ValueError(f"{source} does not fit its config ({reasons})")
    model.load_state_dict(state)


def _classifies(name: str) -> bool:
    """Whether the parameter of this name belongs to a classifier."""
    return ".classifier." in name or ".stage_heads." in name


def _folder(source: str | Path) -> Path:
    path = Path(source)
    for folder in (path, path / "model"):
        if (folder / CONFIG).is_file():
            if not (folder / WEIGHTS).is_file():
                raise FileNotFoundError(f"{folder / WEIGHTS} is missing beside {CONFIG}: copy the whole model folder")
            return folder
    if path.exists() or len(path.parts) != 2 or str(source).startswith((".", "/", "~")):
        raise FileNotFoundError(
            f"{source} holds no model: expected {CONFIG} and {WEIGHTS} there or in its model/ folder"
        )
    return _download(str(source))


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=[CONFIG, WEIGHTS]))
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FileNotFoundError(
            f"{name} is no folder here and could not be fetched from the hub ({reason}): give the path of a model folder"
        ) from error
