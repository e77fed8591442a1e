"""What `predict` does with videos: where they go, and what is said of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from nonlocalseg.cli.errors import describe
from nonlocalseg.cli.terminal import say, show
from nonlocalseg.inference.footage import Footage
from nonlocalseg.values import names_of

if TYPE_CHECKING:
    import torch

    from nonlocalseg.inference.clips import Clip
    from nonlocalseg.inference.engine import Model
    from nonlocalseg.view import View


def footage_of(
    own: Footage, videos: Mapping[str, str], stills: Sequence[str], of_stills: Mapping[str, object]
) -> Footage:
    """The options about videos. Raises ValueError where one is given and there is no video, and where one of those about
    photographs, `of_stills`, is given and there is no photograph."""
    footage = Footage(**{name: getattr(own, name) for name in names_of(Footage)})
    for name in () if videos else names_of(Footage):
        if getattr(footage, name) != getattr(Footage(), name):
            raise ValueError(f"--{name} is for videos, and there is none among PATHS")
    if videos and of_stills.get("engine"):
        raise ValueError("--engine: ray labels photographs; give the videos in a call of their own")
    for name, given in of_stills.items():
        if given and not stills:
            raise ValueError(f"--{name} is for photographs, and there is none among PATHS")
    return footage


def watched_footage(own: Footage, out: str, of_stills: Mapping[str, object]) -> Footage:
    """The options about videos in folders that fill up. Raises ValueError for what goes with no such folder."""
    for name in ("format", "again", "engine"):
        if of_stills.get(name):
            raise ValueError(f"--{name}: not with --watch; call predict without it when the folder is full")
    target_of(out, own, (), {})
    return Footage(**{name: getattr(own, name) for name in names_of(Footage)})


def target_of(out: str, footage: Footage, stills: Sequence[str], videos: Mapping[str, str]) -> Path | None:
    """The file that --out names, None where it is a folder. Raises ValueError where a file does not do."""
    from nonlocalseg.inference.clips import SUFFIXES
    from nonlocalseg.inference.recording import coding_of

    path = Path(out).expanduser()
    if path.suffix.lower() not in SUFFIXES or path.is_dir():
        return None
    if stills or len(videos) != 1:
        raise ValueError(f"--out: {out} is a file, for one video; give a folder for more, and for photographs")
    coding_of(path, footage.video)
    (video,) = videos
    if path.exists() and Path(video).exists() and path.samefile(video):
        raise ValueError(f"--out: {out} is the video itself; choose another name")
    return path


def label_videos(
    network: Model,
    view: View,
    footage: Footage,
    videos: Mapping[str, str],
    target: Path | None,
    folder: Path,
    device: torch.device,
    accumulate_on: torch.device | None,
) -> int:
    """Label each, into the file `target` or else below `folder`; the number of those that could not be."""
    from nonlocalseg.inference.recording import suffix_for
    from nonlocalseg.inference.stopping import Stopping
    from nonlocalseg.inference.video import label_video

    failed = 0
    for source, name in videos.items():

        def place(clip: Clip, name: str = name) -> Path:
            if clip.live:
                say(f"{clip.name}: live; Ctrl-C ends it, and the file is whole then")
            return target or folder / footage.video / f"{name}{suffix_for(clip, footage.video)}"

        try:
            with Stopping() as stopping, _notes():
                found = label_video(
                    network, source, place, view, footage,
                    device=device, accumulate_on=accumulate_on, stopped=stopping.asked, quiet=False,
                )  # fmt: skip
        except (ValueError, OSError, RuntimeError, MemoryError) as error:
            if len(videos) == 1:
                raise
            failed += 1
            say(describe(error)[0])
            continue
        for note in (
            f"{found.damaged} damaged parts were left out" if found.damaged else "",
            f"the source ended by itself: {found.ended}" if found.ended else "",
        ):
            if note:
                say(f"note: {source}: {note}")
        between = f", {found.seen} of them seen by the model" if found.seen < found.frames else ""
        show(f"{found.frames} frame{'s' if found.frames > 1 else ''} labelled{between}, in {found.out}")
    return failed


@contextmanager
def _notes() -> Iterator[None]:
    """What the library warns of, once, whatever changes from frame to frame."""
    said: set[str] = set()

    def tell(message: Warning | str, *_place: object, **_more: object) -> None:
        start = str(message).partition(":")[0]
        if start not in said:
            said.add(start)
            say(f"note: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = tell
        yield
