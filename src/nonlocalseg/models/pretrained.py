"""ImageNet weights of a backbone: where they lie, and in seconds whether they can be had at all."""

from __future__ import annotations

import threading
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

PATIENCE = 5.0
"""Seconds in which a server must answer; without asking first, a download is tried for most of a minute."""
_FILES = ("model.safetensors", "pytorch_model.bin")


def find_weights(name: str) -> Path | None:
    """The file with timm's weights of the network `name` where it has been downloaded; None where timm can do it now.

    Raises ValueError, which says why, where there are none or they cannot be had.
    """
    import timm
    import torch
    from huggingface_hub import constants, try_to_load_from_cache

    config = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    if config is None or not config.has_weights:
        raise ValueError(f"timm has no weights of {name}")
    if config.hf_hub_id:
        repository, _, revision = config.hf_hub_id.partition("@")
        for file in (config.hf_hub_filename, *_FILES):
            found = try_to_load_from_cache(repository, file, revision=revision or None) if file else None
            if isinstance(found, str):
                return Path(found)
        if constants.HF_HUB_OFFLINE:
            raise ValueError("they are not in the cache, and HF_HUB_OFFLINE forbids to download them")
        address = constants.ENDPOINT
    else:
        address = str(config.url)
        cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(address).path).name
        if cached.is_file():
            return cached
    reason = silence_of(address)
    if reason is not None:
        raise ValueError(f"they are not in the cache, and {urlsplit(address).netloc} cannot be reached: {reason}")
    return None


def silence_of(address: str) -> str | None:
    """Why the server of `address` does not answer; None where it does."""
    said: list[str | None] = []

    def ask() -> None:
        try:
            urlopen(Request(address, method="HEAD"), timeout=PATIENCE).close()
            said.append(None)
        except HTTPError:  # an answer, too
            said.append(None)
        except (OSError, ValueError) as error:
            said.append(" ".join(str(getattr(error, "reason", error)).split()))

    asking = threading.Thread(target=ask, daemon=True)  # looking up a name may take longer than any timeout
    asking.start()
    asking.join(PATIENCE)
    return said[0] if said else f"no answer within {PATIENCE:g} seconds"
