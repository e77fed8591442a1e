"""A data set and a run on it, and a verb that must fail in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_runs import draw, train

from nonlocalseg.cli import main


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return draw(tmp_path / "data")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folders of a data set and of a run on it; tests must not change them."""
    place = tmp_path_factory.mktemp("trained")
    root = draw(place / "data")
    assert main(train(root, place / "run")) == 0
    return root, place / "run"


@pytest.fixture
def mistake(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """`mistake(*words)` runs a verb that must fail with exit code 2 and one line on stderr, which it returns."""

    def run(*words: object) -> str:
        capsys.readouterr()
        code = main([str(word) for word in words])
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1, lines
        assert code == 2, lines
        assert lines[0].startswith("error: ")
        return lines[0]

    return run
