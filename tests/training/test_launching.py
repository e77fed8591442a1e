"""What starting other processes leaves behind in the first one: nothing."""

from __future__ import annotations

import os
import subprocess

import pytest

from nonlocalseg.training import launching

NAMES = ("WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


class Begun:
    """In place of a process."""

    def __init__(self, *_: object, env: dict[str, str]) -> None:
        self.env = env

    def poll(self) -> int:
        return 0

    def kill(self) -> None:
        pass


@pytest.mark.parametrize("fails", [False, True])
def test_the_environment_is_as_before(monkeypatch, fails):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MASTER_PORT", "29501")
    monkeypatch.setattr(subprocess, "Popen", Begun)
    before = dict(os.environ)
    crew = launching.Crew(2, 1)
    try:
        with crew.ended_together():
            crew.start()
            assert [os.environ[name] for name in NAMES] == ["2", "0", "127.0.0.1", "29501"]
            (other,) = crew.others
            assert isinstance(other, Begun)
            assert other.env["LOCAL_RANK"] == "1"
            if fails:
                raise ValueError("on purpose")
    except ValueError:
        assert fails
    assert dict(os.environ) == before
