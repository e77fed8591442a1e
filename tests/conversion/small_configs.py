"""The networks of mmsegmentation's configs at small widths."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Mapping
from typing import Any

CLASSES = 3
SMALL = {"project_channels": 8, "isa_channels": 8, "ocr_channels": 8, "ema_channels": 16, "pam_channels": 4}
SMALL |= {"c1_channels": 6, "num_codes": 6, "num_bases": 6, "mask_size": (9, 9)}


def small(model: Mapping[str, Any]) -> dict[str, Any]:
    """The same network with an eighth of the widths (a MobileNet keeps its own), and with plain batch norm."""
    found = copy.deepcopy(dict(model))
    scaled = found["backbone"]["type"].startswith("ResNet")
    if scaled:
        found["backbone"] |= {"base_channels": 8} | (
            {} if found["backbone"]["type"] == "ResNet" else {"stem_channels": 8}
        )
    decode, auxiliary = found["decode_head"], found.get("auxiliary_head")
    for head in [*(decode if isinstance(decode, list) else [decode]), *([auxiliary] if auxiliary else [])]:
        head["num_classes"] = CLASSES
        for name in ("in_channels", "c1_in_channels"):
            if name in head and scaled:
                wide = head[name]
                head[name] = [width // 8 for width in wide] if isinstance(wide, list) else wide // 8
        head["channels"] = 16
        head |= {name: value for name, value in SMALL.items() if name in head}
    return _plain_norm(found)


def digest(state: Mapping[str, Any]) -> int:
    """Of the names and shapes of a state dict."""
    return zlib.crc32("\n".join(sorted(f"{key} {list(item.shape)}" for key, item in state.items())).encode())


def _plain_norm(given: Any) -> Any:
    if isinstance(given, Mapping):
        return {name: "BN" if item == "SyncBN" else _plain_norm(item) for name, item in given.items()}
    return [_plain_norm(item) for item in given] if isinstance(given, list) else given
