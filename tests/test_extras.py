"""What is said where the packages of an extra are missing."""

from __future__ import annotations

import pytest

from nonlocalseg.extras import needing


def test_a_missing_package_names_its_extra():
    with (
        pytest.raises(ValueError, match=r"^a\.mp4: a video needs the extra video: pip install 'nonlocalseg\[video\]'$"),
        needing("video", "a.mp4: a video"),
    ):
        import no_such_package.at_all  # noqa: F401  # pyright: ignore[reportMissingImports]


def test_mistakes_of_our_own_are_not_hidden():
    with pytest.raises(ModuleNotFoundError, match=r"nonlocalseg\.nothing"), needing("video", "a video"):
        import nonlocalseg.nothing  # noqa: F401  # pyright: ignore[reportMissingImports]
