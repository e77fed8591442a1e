"""Servers of this machine may be asked for files: no other is."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _network(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
