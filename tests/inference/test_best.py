"""The best class without all scores, bit by bit that of all scores; and the memory that it takes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

import pytest
import torch
from grid_network import GridNetwork, drawn, photograph
from torch import Tensor, nn

from nonlocalseg.images import channels_first
from nonlocalseg.inference import best, engine
from nonlocalseg.inference.best import Layer, best_class, best_of_layers
from nonlocalseg.inference.engine import classify, infer, look
from nonlocalseg.inference.resizing import Placement
from nonlocalseg.view import View


class Scores(nn.Module):
    """Stored scores on a grid, which `forward` resizes as any network does."""

    def __init__(self, scores: Tensor, align_corners: bool) -> None:
        super().__init__()
        self.scores, self.align_corners, self.num_classes = scores, align_corners, scores.shape[1]

    def coarse(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        return self.scores, (images.shape[2], images.shape[3])

    def forward(self, images: Tensor) -> Tensor:
        size = images.shape[-2:]
        return nn.functional.interpolate(self.scores, size, mode="bilinear", align_corners=self.align_corners)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("kind", ["noise", "smooth", "ties", "one cell", "one row"])
@pytest.mark.parametrize(("size", "few"), [((65, 97), 0), ((48, 64), 2**24), ((17, 16), 2**24), ((270, 330), 0)])
def test_equal_to_the_argmax_of_all_scores(
    kind: str, size: tuple[int, int], few: int, align_corners: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(best, "FEW", few)
    grids = {"one cell": (1, 1), "one row": (1, 9)}
    scores = drawn(2, 40, *grids.get(kind, (9, 13)), seed=5)
    if kind == "smooth":
        scores = nn.functional.avg_pool2d(scores, 5, 1, 2) * 3 + drawn(1, 40, 1, 1, seed=6)
    elif kind == "ties":
        scores = scores.round()  # a few values, so that several classes share the first place nearly everywhere
        scores[:, 20:] = scores[:, :20]
    model, images = Scores(scores, align_corners), torch.zeros(2, 3, *size)
    expected = model(images).argmax(1)
    assert torch.equal(classify(model, images, average="logits", align_corners=align_corners), expected)
    assert kind != "ties" or int(expected.max()) < 20


@pytest.mark.parametrize(
    "view",
    [
        View(average="logits", flip=True, scales=(0.5, 1.0, 1.5)),
        View(average="logits", short_side=40),
        View(average="logits", short_side=100, score_resize="bicubic", scales=(0.5, 1.0)),
        View(average="logits", score_resize="direct", scales=(0.75,)),
        View(scales=(0.5, 1.0), flip=True),
        View(softmax="image", flip=True),
        View(mode="slide", crop=(40, 48), flip=True),
        View(mode="slide", crop=(40, 48), short_side=50, average="logits"),
        View(mode="slide", crop=(90, 90), small="pad", pad_multiple=16),
    ],
    ids=lambda view: ",".join(view.words()) + view.average,
)
@pytest.mark.parametrize("rolling", [False, True])
def test_classes_and_scores_are_of_one_mind(view: View, rolling: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """`classify`, whatever way it takes, is the argmax of `infer`; and so are the two of one look."""
    monkeypatch.setattr(engine, "ROLLING", 0 if rolling else 2**40)
    monkeypatch.setattr(best, "FEW", 0)
    network, images = GridNetwork(False), channels_first(photograph(66, 95))[None]
    expected = infer(network, images, view)
    assert torch.equal(classify(network, images, view), expected.argmax(1))
    with torch.no_grad():
        seen = look(network, images, view)
        assert torch.equal(seen.best(), expected.argmax(1))
        assert torch.equal(seen.scores(), expected)


def test_classes_that_cannot_win_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(best, "FEW", 0)
    scores = torch.full((1, 30, 8, 8), -1.0)
    scores[:, [3, 7]] = 0
    scores[:, 7, :, :4], scores[:, 3, :, 4:], scores[:, 9, 0, 0] = 5, 5, 4
    tried: list[int] = []

    class Listening(Layer):
        def classes(self, numbers: Sequence[int]) -> Tensor:
            tried.extend(numbers)
            return super().classes(numbers)

    layer = Listening(scores, Placement((64, 64), (64, 64), (64, 64)))
    assert torch.equal(best_of_layers([layer])[0, 20], torch.where(torch.arange(64) < 32, 7, 3))
    assert tried == [3, 7]


def test_classes_that_win_between_cells_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Second in every cell, first between them."""
    monkeypatch.setattr(best, "FEW", 0)
    scores = torch.tensor([[10.0, 0], [0, 10], [6, 6]]).view(1, 3, 1, 2)
    layer = Layer(scores, Placement((8, 16), (8, 16), (8, 16)))
    assert best_of_layers([layer])[0, 0].unique().tolist() == [0, 1, 2]


def test_best_class_of_a_batch_in_strips() -> None:
    scores = torch.rand(2, 4, 2 * best.STRIP_ROWS + 3, 3)
    assert torch.equal(best_class(scores), scores.argmax(1))


MANY_CLASSES = """
import json, resource, sys
import torch
from torch import nn
from nonlocalseg.inference.engine import classify
torch.set_num_threads(1)
torch.manual_seed(0)
class Smooth(nn.Module):
    num_classes = 150
    def coarse(self, images):
        scores = nn.functional.interpolate(torch.randn(1, 150, 12, 18), (500, 750), mode="bilinear")
        return scores * 4 + 0.3 * torch.randn(1, 150, 500, 750), (4000, 6000)
image = torch.zeros(1, 3, 4000, 6000, dtype=torch.uint8)
network = Smooth()
network.coarse(image)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
mask = classify(network, image, average="logits")
print(json.dumps({"grown": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024, "n": len(mask.unique())}))
"""


@pytest.mark.slow
def test_150_classes_of_24_megapixels_take_less_than_1500_megabytes() -> None:
    """All scores at full size would be 14.4 GB."""
    answer = subprocess.run([sys.executable, "-c", MANY_CLASSES], capture_output=True, text=True, check=True).stdout
    figures = json.loads(answer)
    print(figures)
    assert figures["n"] > 50
    assert figures["grown"] < 1.5e9
