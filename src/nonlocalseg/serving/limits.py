"""What a server takes: bytes, pixels and kinds of files, how many requests at once, how much it remembers."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt, Le

from nonlocalseg.values import Count, Metavar, Positive, value

Megapixels = Annotated[float, Gt(0), Le(134)]


@value
class Limits:
    max_megabytes: Annotated[Positive, Metavar("MB")] = 20.0
    """The largest file that is taken, in megabytes."""
    max_megapixels: Annotated[Megapixels, Metavar("MP")] = 25.0
    """The largest photograph that is taken, in millions of pixels, known from its header before it is decoded."""
    queue: Count = 8
    """Requests that are received, wait or run at one time; the next one is told that the server is busy."""
    keep_megabytes: Annotated[Positive, Metavar("MB")] = 512.0
    """Memory for the page's latest photographs and answers, which are kept for half an hour and never written to disk."""

    @property
    def most_bytes(self) -> int:
        return int(self.max_megabytes * 10**6)

    @property
    def most_pixels(self) -> int:
        return int(self.max_megapixels * 10**6)


class Refused(Exception):
    """A request that is answered with a status and one line, which may be shown to anybody."""

    def __init__(self, status: int, message: str, wait: int | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.wait = status, message, wait


def checked_name(given: str | None) -> str:
    """What a client calls its file: the last part of the name, printable, of at most 80 characters."""
    last = (given or "").replace("\\", "/").rpartition("/")[2]
    name = "".join(character for character in last if character.isprintable()).strip(" .")
    return name[-80:] or "photograph"
