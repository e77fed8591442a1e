"""The page as a Gradio application: one element of our own HTML and script, in Gradio's frame and theme.

Photographs go to our own routes and stay in memory. Gradio's uploads would lie in files, tell the browser their paths,
and fetch addresses that a client names; all its ways in are shut (`guard`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from nonlocalseg.extras import needing
from nonlocalseg.serving.answer import hexadecimal
from nonlocalseg.serving.desk import Desk
from nonlocalseg.serving.results import EXAMPLES, make_routes

if TYPE_CHECKING:
    from fastapi import FastAPI

HERE = Path(__file__).parent
FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif")


def add_page(app: FastAPI, desk: Desk, title: str = "nonlocalseg") -> FastAPI:
    """The application with the page at / and its routes at /page."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
    with needing("serve", "nonlocalseg serve"):
        import gradio

    app.include_router(make_routes(desk))
    with gradio.Blocks(title=title, analytics_enabled=False) as blocks:
        gradio.HTML(
            _facts(desk),
            html_template=(HERE / "page.html").read_text(encoding="utf-8"),
            js_on_load=(HERE / "page.js").read_text(encoding="utf-8"),
            apply_default_css=False,
        )
    return gradio.mount_gradio_app(
        app,
        blocks,
        path="/",
        theme=gradio.themes.Base(font=FONTS, font_mono=("ui-monospace", "monospace")),
        css=(HERE / "page.css").read_text(encoding="utf-8"),
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        allowed_paths=[],
        max_file_size=1,
    )


def _facts(desk: Desk) -> dict[str, object]:
    """What the script knows from the start."""
    return {
        "models": [
            {"name": m.name, "classes": list(m.classes), "colours": list(map(hexadecimal, m.palette))}
            for m in desk.models
        ],
        "bytes": desk.limits.most_bytes,
        "megabytes": desk.limits.max_megabytes,
        "examples": len(EXAMPLES),
    }
