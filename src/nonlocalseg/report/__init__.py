"""One self-contained HTML page about a run: recipe, curves, scores, boundaries, images, attention and speed.

`page` puts it together, `findings` gathers what it tells; each of `recipe`, `scores`, `examples`, `attention` and
`speed` writes sections, out of `elements`.
"""

from nonlocalseg.report.page import report

__all__ = ["report"]
