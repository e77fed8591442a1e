"""nonlocalseg: train, measure, explain and ship scene-parsing models with long-range context (ANN and GALD)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nonlocalseg.explanations import explain
    from nonlocalseg.inference import Prediction, infer, predict
    from nonlocalseg.models.converting import convert
    from nonlocalseg.models.folding import fold
    from nonlocalseg.models.hub import from_pretrained, push_to_hub
    from nonlocalseg.models.presets import MODELS, create_model
    from nonlocalseg.models.segmenter import Segmenter
    from nonlocalseg.models.speed import speed_up
    from nonlocalseg.training.running import evaluate, train

__version__ = "0.1.0"

# Public name -> module. Loaded when first used, so that importing the package needs neither timm nor lightning.
_PUBLIC = {
    "Segmenter": "nonlocalseg.models.segmenter",
    "MODELS": "nonlocalseg.models.presets",
    "create_model": "nonlocalseg.models.presets",
    "from_pretrained": "nonlocalseg.models.hub",
    "push_to_hub": "nonlocalseg.models.hub",
    "convert": "nonlocalseg.models.converting",
    "fold": "nonlocalseg.models.folding",
    "speed_up": "nonlocalseg.models.speed",
    "explain": "nonlocalseg.explanations",
    "Prediction": "nonlocalseg.inference",
    "infer": "nonlocalseg.inference",
    "predict": "nonlocalseg.inference",
    "train": "nonlocalseg.training.running",
    "evaluate": "nonlocalseg.training.running",
}

__all__ = [
    "MODELS",
    "Prediction",
    "Segmenter",
    "convert",
    "create_model",
    "evaluate",
    "explain",
    "fold",
    "from_pretrained",
    "infer",
    "predict",
    "push_to_hub",
    "speed_up",
    "train",
]


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'nonlocalseg' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
