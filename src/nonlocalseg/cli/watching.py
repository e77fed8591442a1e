"""`predict --watch`: what appears in folders is labelled, until Ctrl-C or `kill`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nonlocalseg.cli.errors import FAILED
from nonlocalseg.cli.terminal import say, show

if TYPE_CHECKING:
    from nonlocalseg.inference.batch import Labelled, Labeller, Way
    from nonlocalseg.inference.sources import Listed


def watch_folders(
    folders: Sequence[str], out: Path, labeller: Labeller, way: Way, kind: str, film: Callable[[str, str], object]
) -> int:
    """Label what is there and what comes, each once, over several calls too; the exit code.

    kind: of videos, `Footage.video`. film: writes the video of a source, called by its name, below `out`.
    """
    from nonlocalseg.inference.arrivals import PAUSE, Arrivals, is_video
    from nonlocalseg.inference.manifest import Manifest
    from nonlocalseg.inference.stopping import Stopping

    arrivals, done, earlier, failed, advised = Arrivals(folders, out), 0, 0, 0, False
    say(f"watching {', '.join(folders)}; Ctrl-C ends it")
    with Stopping() as stopping:
        while not stopping.wait(PAUSE):
            ready = arrivals.look()
            photographs = [item for item in ready if not is_video(item)]
            manifest = Manifest(out, way, photographs) if photographs else None
            for item in ready:
                if stopping.asked():
                    break
                before = _filmed(item, out, kind) if is_video(item) else manifest and item.input in manifest.earlier
                if before:
                    earlier += 1
                    continue
                try:
                    result = _film(item, film) if is_video(item) else labeller.label(item, out)
                except KeyboardInterrupt:  # during a video, of which nothing is left
                    stopping.ask()
                    break
                if result.failed and arrivals.puts_off(item):
                    continue
                if manifest is not None and not is_video(item):
                    manifest.add(result)
                for note in (*result.notes, *([] if advised or not result.advice else [result.advice])):
                    say(f"note: {note}")
                advised = advised or bool(result.advice)
                if result.failed:
                    failed += 1
                    say(f"error: {result.reason}")
                else:
                    done += 1
                    show(f"{item.name}: labelled")
    show(f"{done} labelled{f', {failed} failed' if failed else ''}, {earlier} were done earlier; in {out}")
    return FAILED if failed else 0


def _filmed(item: Listed, out: Path, kind: str) -> bool:
    """Whether the video of it is there already, and not older."""
    from nonlocalseg.inference.recording import CODINGS

    places = [path for suffix in CODINGS[kind] if (path := out / kind / f"{item.name}{suffix}").is_file()]
    source = Path(item.place)
    return source.is_file() and any(place.stat().st_mtime_ns >= source.stat().st_mtime_ns for place in places)


def _film(item: Listed, film: Callable[[str, str], object]) -> Labelled:
    from nonlocalseg.inference.batch import DONE, Labelled
    from nonlocalseg.inference.batch import FAILED as BROKEN

    try:
        film(item.place, item.name)
    except (ValueError, FileNotFoundError) as error:
        return Labelled(item, BROKEN, str(error))
    return Labelled(item, DONE)
