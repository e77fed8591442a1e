"""One self-contained HTML page about a run: recipe, curves, scores, boundaries, images, attention and speed."""
