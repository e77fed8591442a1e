"""nonlocalseg: train, measure, explain and ship scene-parsing models with long-range context (ANN and GALD)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nonlocalseg.conversion.checkpoints import convert
    from nonlocalseg.data.annotations import annotate
    from nonlocalseg.data.source import DataSource
    from nonlocalseg.evaluation.scoring import evaluate
    from nonlocalseg.explanation.collect import explain
    from nonlocalseg.exporting.writing import export
    from nonlocalseg.inference.calibration import calibration_images
    from nonlocalseg.inference.engine import infer
    from nonlocalseg.inference.footage import Footage
    from nonlocalseg.inference.large import predict_into
    from nonlocalseg.inference.predictor import Prediction, predict
    from nonlocalseg.inference.video import label_video, predict_video
    from nonlocalseg.models.catalog import MODELS
    from nonlocalseg.models.config import ModelConfig
    from nonlocalseg.models.creation import create_model
    from nonlocalseg.models.folding import fold
    from nonlocalseg.models.segmenter import Segmenter
    from nonlocalseg.models.speed import speed_up
    from nonlocalseg.publishing.pushing import push_to_hub
    from nonlocalseg.serving.server import serve
    from nonlocalseg.training.plan import Plan
    from nonlocalseg.training.runs import train
    from nonlocalseg.view import View
    from nonlocalseg.zoo.pretrained import from_pretrained

__version__ = "0.1.0"

# Public name -> module. Loaded when first used, so that importing the package needs neither timm nor lightning.
_PUBLIC = {
    "DataSource": "nonlocalseg.data.source",
    "Footage": "nonlocalseg.inference.footage",
    "MODELS": "nonlocalseg.models.catalog",
    "ModelConfig": "nonlocalseg.models.config",
    "Plan": "nonlocalseg.training.plan",
    "Prediction": "nonlocalseg.inference.predictor",
    "Segmenter": "nonlocalseg.models.segmenter",
    "View": "nonlocalseg.view",
    "annotate": "nonlocalseg.data.annotations",
    "calibration_images": "nonlocalseg.inference.calibration",
    "convert": "nonlocalseg.conversion.checkpoints",
    "create_model": "nonlocalseg.models.creation",
    "evaluate": "nonlocalseg.evaluation.scoring",
    "explain": "nonlocalseg.explanation.collect",
    "export": "nonlocalseg.exporting.writing",
    "fold": "nonlocalseg.models.folding",
    "from_pretrained": "nonlocalseg.zoo.pretrained",
    "infer": "nonlocalseg.inference.engine",
    "label_video": "nonlocalseg.inference.video",
    "predict": "nonlocalseg.inference.predictor",
    "predict_into": "nonlocalseg.inference.large",
    "predict_video": "nonlocalseg.inference.video",
    "push_to_hub": "nonlocalseg.publishing.pushing",
    "serve": "nonlocalseg.serving.server",
    "speed_up": "nonlocalseg.models.speed",
    "train": "nonlocalseg.training.runs",
}

__all__ = [
    "MODELS",
    "DataSource",
    "Footage",
    "ModelConfig",
    "Plan",
    "Prediction",
    "Segmenter",
    "View",
    "annotate",
    "calibration_images",
    "convert",
    "create_model",
    "evaluate",
    "explain",
    "export",
    "fold",
    "from_pretrained",
    "infer",
    "label_video",
    "predict",
    "predict_into",
    "predict_video",
    "push_to_hub",
    "serve",
    "speed_up",
    "train",
]


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'nonlocalseg' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
