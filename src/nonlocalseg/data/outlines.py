"""Masks as polygons along the edges of their pixels, holes and all, and polygons as masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

Ring = list[tuple[int, int]]
"""Corners (x, y) in turn, where (0, 0) is the image's corner; the first is not repeated at the end."""
_AT_ONCE = 1 << 22  # crossings of polygons and rows


def trace_outlines(mask: np.ndarray) -> list[list[Ring]]:
    """The polygons of bool [H, W], one for each region of pixels that share an edge: its outline, then its holes.

    No ring touches itself. With x to the right and y as if it pointed up, outlines run counterclockwise and holes
    clockwise, as GeoJSON wants it. `fill_rings` of all rings is `mask` again.
    """
    from scipy import ndimage

    regions = np.zeros(mask.shape, np.int32)
    ndimage.label(mask, output=regions)
    found: list[list[Ring]] = [[] for _ in range(regions.max(initial=0))]
    for ring, region in _rings(np.pad(mask, 1), regions):
        if _area(ring) > 0:
            found[region - 1].insert(0, ring)
        else:
            found[region - 1].append(ring)
    return found


def fill_rings(rings: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Pixels whose centre lies inside an odd number of the rings [N, 2] of (x, y), N >= 1: bool [H, W]."""
    height, width = size
    mask = np.zeros(size, bool)
    if rings:
        start, end = np.concatenate(rings), np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
        first, last = (  # rows whose centres lie between both ends
            np.clip(np.ceil(edge - 0.5), 0, height).astype(np.int64)
            for edge in (np.minimum(start[:, 1], end[:, 1]), np.maximum(start[:, 1], end[:, 1]))
        )
        above, below = int(first.min()), int(last.max())
        toggles = np.zeros((max(0, below - above), width + 1), np.uint8)
        reached = np.cumsum(last - first)
        for part in np.split(
            np.arange(len(start)), np.searchsorted(reached, np.arange(_AT_ONCE, reached[-1], _AT_ONCE))
        ):
            counts = (last - first)[part]
            each = np.repeat(part, counts)
            rows = np.arange(len(each)) - np.repeat(np.cumsum(counts) - counts, counts) + first[each]
            a, b = start[each], end[each]
            x = a[:, 0] + (rows + 0.5 - a[:, 1]) / (b[:, 1] - a[:, 1]) * (b[:, 0] - a[:, 0])
            np.add.at(toggles, (rows - above, np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)), 1)
        mask[above : above + len(toggles)] = np.cumsum(toggles, axis=1, dtype=np.uint8)[:, :width] & 1
    return mask


@dataclass(frozen=True)
class _Sides:
    """Straight pieces of all outlines along one axis: the corner where each begins and the one where it ends, as numbers
    y (W + 1) + x, and whether it leads towards larger coordinates."""

    start: np.ndarray
    end: np.ndarray
    forward: np.ndarray

    def after(self, corners: np.ndarray, forward: np.ndarray) -> np.ndarray:
        """Which of them begins at each of the corners; of two, the one that leads where `forward` says."""
        keys = 2 * self.start + self.forward
        order = np.argsort(keys)
        wanted = 2 * corners + forward
        for _ in range(2):
            place = np.searchsorted(keys, wanted, sorter=order).clip(max=len(keys) - 1)
            wanted = np.where(keys[order[place]] == wanted, wanted, wanted ^ 1)
        return order[place]


def _runs(padded: np.ndarray) -> tuple[np.ndarray, ...]:
    """Where rows differ from those before them: line, first and last place on it, whether the later row is inside."""
    change = padded[1:].astype(np.int8) - padded[:-1]
    flat, width = change.ravel(), change.shape[1]
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1  # no run goes around the padding
    starts, ends = edges[flat[edges] != 0], edges[flat[edges - 1] != 0]
    return starts // width, starts % width - 1, ends % width - 1, flat[starts] > 0


def _rings(padded: np.ndarray, regions: np.ndarray) -> Iterator[tuple[Ring, int]]:
    """Every ring, with its region on its left hand. Where two pixels touch by a corner alone, each keeps its own."""
    width = padded.shape[1] - 1
    y, low, high, right = _runs(padded)
    x, top, bottom, up = _runs(padded.T)
    across = _Sides(y * width + np.where(right, low, high), y * width + np.where(right, high, low), right)
    down = _Sides(np.where(up, bottom, top) * width + x, np.where(up, top, bottom) * width + x, ~up)
    turned = down.after(across.end, right)
    following = across.after(down.end, up)[turned].tolist()
    inside = regions[np.where(right, y, y - 1), low].tolist()
    corners = np.stack([across.start, down.start[turned]], axis=1).tolist()
    seen = bytearray(len(following))
    for side in range(len(following)):
        ring: Ring = []
        while not seen[side]:
            seen[side] = 1
            ring += [(corner % width, corner // width) for corner in corners[side]]
            side = following[side]
        if ring:
            yield from ((loop, inside[side]) for loop in _loops(ring))


def _loops(ring: Ring) -> Iterator[Ring]:
    """A ring that passes a corner twice as several that do not."""
    path: Ring = []
    place: dict[tuple[int, int], int] = {}
    for corner in ring:
        if corner in place:
            loop = path[place[corner] :]
            del path[place[corner] :]
            for one in loop:
                del place[one]
            yield loop
        place[corner] = len(path)
        path.append(corner)
    yield path


def _area(ring: Ring) -> int:
    """Twice the area that a ring encloses, negative where it runs clockwise."""
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(ring, [*ring[1:], ring[0]], strict=True))
