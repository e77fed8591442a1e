"""Pieces of HTML: escaped text, tables, figures, sections; and pictures as data URIs, so that a page needs no other file."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 130


class Html(str):
    """Text that is HTML already; every other text is escaped."""


def escaped(value: object) -> Html:
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def joined(parts: Iterable[object], between: str = "\n") -> Html:
    return Html(between.join(escaped(part) for part in parts))


def paragraph(*parts: object, kind: str = "") -> Html:
    return Html(f'<p class="{kind}">{joined(parts, " ")}</p>' if kind else f"<p>{joined(parts, ' ')}</p>")


def section(identity: str, title: str, *parts: object) -> Html:
    head = f'<section id="{identity}" aria-labelledby="{identity}-title">\n<h2 id="{identity}-title">'
    return Html(f"{head}{escaped(title)}</h2>\n{joined(parts)}\n</section>")


def details(summary: str, *parts: object) -> Html:
    return Html(f"<details><summary>{escaped(summary)}</summary>\n{joined(parts)}\n</details>")


def table(
    caption: object,
    headings: Sequence[object],
    groups: Mapping[str, Sequence[Sequence[object]]] | Sequence[Sequence[object]],
    kind: str = "",
) -> Html:
    """Rows of cells, the first of each its heading; `groups` by name have a line of their own above their rows.

    Cells after the first that begin with a digit, sign or dash are set as numbers. kind: class names of the table.
    """
    named = groups if isinstance(groups, Mapping) else {"": groups}
    bodies = []
    for name, rows in named.items():
        lines = [f'<tr><th class="group" colspan="{len(headings)}" scope="rowgroup">{escaped(name)}</th></tr>'] * bool(
            name
        )
        lines += [_row(row) for row in rows]
        bodies.append("<tbody>\n" + "\n".join(lines) + "\n</tbody>")
    head = "".join(f'<th scope="col">{escaped(heading)}</th>' for heading in headings)
    shown = f"<thead><tr>{head}</tr></thead>\n" if any(str(heading) for heading in headings) else ""
    tag = f'<table class="{kind}">' if kind else "<table>"
    return Html(
        f'<div class="scroll">{tag}<caption>{escaped(caption)}</caption>\n{shown}{chr(10).join(bodies)}\n</table></div>'
    )


def _row(cells: Sequence[object]) -> str:
    first, *others = cells
    written = [f'<th scope="row">{escaped(first)}</th>']
    for cell in others:
        number = not isinstance(cell, Html) and str(cell)[:1] in "0123456789+-–"
        written.append(f'<td class="number">{escaped(cell)}</td>' if number else f"<td>{escaped(cell)}</td>")
    return "<tr>" + "".join(written) + "</tr>"


def figure(source: str, alt: str, caption: object = "", kind: str = "") -> Html:
    """A picture, a data URI, with the text that stands for it and its caption. kind: "wide" scrolls on narrow screens."""
    told = f"<figcaption>{escaped(caption)}</figcaption>" if str(caption) else ""
    return Html(f'<figure class="{kind}"><div><img src="{source}" alt="{escaped(alt)}"></div>{told}</figure>')


def grid(parts: Iterable[object], kind: str = "two") -> Html:
    return Html(f'<div class="grid {kind}">{joined(parts)}</div>')


def words(heading: str) -> Html:
    """The heading of a column of text in a table of figures."""
    return Html(f'<span class="words">{escaped(heading)}</span>')


def bar(share: float) -> Html:
    """A bar as long as the share of its cell; nothing for what is undefined."""
    wide = 0.0 if math.isnan(share) else 100 * min(max(share, 0), 1)
    return Html(f'<span class="bar" aria-hidden="true"><span style="width:{wide:.1f}%"></span></span>')


def swatch(colour: Sequence[int], number: int | None = None) -> Html:
    """A square of a class's colour with its number in it."""
    ink = "#141414" if np.dot(colour, (0.299, 0.587, 0.114)) > 120 else "#ffffff"
    red, green, blue = (int(part) for part in colour)
    text = "&nbsp;" if number is None else str(number)
    style = f"background:#{red:02x}{green:02x}{blue:02x};color:{ink}"
    return Html(f'<span class="swatch" style="{style}" aria-hidden="true">{text}</span>')


def legend(entries: Iterable[tuple[Html, str]]) -> Html:
    """Swatches and what they mean."""
    items = "".join(f"<li>{mark} {escaped(name)}</li>" for mark, name in entries)
    return Html(f'<ul class="legend">{items}</ul>')


def percent(share: float | None) -> str:
    """0.5 as 50.00; a dash for what is undefined."""
    return "–" if share is None or math.isnan(share) else f"{100 * share:.2f}"


def spelled(value: Any) -> str:
    """An option's value for readers: yes and no, a x b for sizes, key = value."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} = {spelled(item)}" for key, item in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(spelled, value)) or "none"
    return str(value)


def png(picture: np.ndarray | Figure) -> str:
    """A plot, or a picture uint8 [H, W, 3], as a data URI."""
    buffer = io.BytesIO()
    if isinstance(picture, np.ndarray):
        Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    else:
        picture.savefig(buffer, format="png", dpi=DPI)
    return _uri(buffer.getvalue(), "png")


def jpeg(picture: np.ndarray | Figure) -> str:
    """A photograph uint8 [H, W, 3], or a plot with photographs in it, as a data URI a fraction as long as a PNG's."""
    buffer, quality = io.BytesIO(), {"quality": 88, "subsampling": 0}
    if isinstance(picture, np.ndarray):
        Image.fromarray(picture).save(buffer, "JPEG", **quality)
    else:
        picture.savefig(buffer, format="jpeg", dpi=DPI, pil_kwargs=quality)
    return _uri(buffer.getvalue(), "jpeg")


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
