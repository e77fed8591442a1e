"""What the verbs print with: output, and figures as text."""

from __future__ import annotations

import sys
import unicodedata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # control characters, direction marks, bytes that are no text, line ends


def visible(text: str) -> str:
    """`text`, where what a terminal would obey, or cannot show, is spelt out: names of files and classes may hold it."""
    return "".join(
        character
        if character in "\n\t" or unicodedata.category(character) not in _HIDDEN
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def output() -> Console:
    """Standard output; wide enough for tables where it is no terminal. What is printed is `visible`."""
    from rich.console import Console

    class Visible(Console):
        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(visible(text), **options)

    return Visible(highlight=False, markup=False, width=None if sys.stdout.isatty() else 120)


def show(text: str) -> None:
    """Lines on standard output as they are, however long."""
    print(visible(text), flush=True)


def say(message: str) -> None:
    """A line on standard error."""
    print(visible(message), file=sys.stderr, flush=True)


def first_process() -> bool:
    """Of the processes that torchrun or Lightning started, one prints."""
    from nonlocalseg.runtime import rank

    return rank() == 0


def percent(share: object) -> str:
    """0.5 as 50.00; a dash for what is undefined."""
    return f"{100 * share:.2f}" if isinstance(share, (int, float)) and share == share else "-"
