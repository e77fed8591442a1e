"""Tiny models that are served, and photographs for them."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image

from nonlocalseg.labels import default_palette
from nonlocalseg.models.creation import create_model
from nonlocalseg.serving.answer import Served
from nonlocalseg.view import View

CLASSES = ("sky", "road, wet", "car")


def served(name: str = "tiny", model: str = "ann", view: View | None = None) -> Served:
    torch.manual_seed(0)
    made = create_model(model, backbone="resnet10t", classes=CLASSES, channels=16).eval()
    return Served(name, made, view or View(), torch.device("cpu"), CLASSES, default_palette(len(CLASSES)))


def photograph(height: int = 48, width: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(image: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()
