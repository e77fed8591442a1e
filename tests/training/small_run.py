"""The options of the smallest training that there is: drawn scenes, a narrow network, a few steps."""

from __future__ import annotations

from typing import Any

SMALL: dict[str, Any] = {
    "data": "synthetic",
    "data_options": {"size": [48, 96], "length": 6},
    "model": "ann",
    "backbone": "mobilenetv2_035",
    "model_options": {"channels": 16, "key_channels": 8, "value_channels": 8, "auxiliary_channels": 16},
    "steps": 6,
    "batch_size": 2,
    "crop": (48, 64),
    "rate": 1e-3,
    "val_every": 3,
    "workers": 0,
    "progress": False,
}
