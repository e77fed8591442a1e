"""Whole, sliding, multi-scale and mirrored inference against literal loops, on toy networks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from nonlocalseg.inference import engine
from nonlocalseg.inference.engine import infer
from nonlocalseg.inference.predictor import predict
from nonlocalseg.models.creation import create_model
from nonlocalseg.view import View

K = 5


class Toy(nn.Module):
    """Scores that depend on the window's border (zero padding), on its mean and on its left-right sense."""

    align_corners = False
    classes = ("a", "b", "c", "d", "e")
    palette = ((0, 0, 0), (10, 0, 0), (20, 0, 0), (30, 0, 0), (40, 0, 0))

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, K, 3, padding=1)
        self.context = nn.Conv2d(3, K, 1)
        self.drop = nn.Dropout2d(0.5)
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        self.sizes.append(tuple(images.shape))
        logits = 3 * self.conv(images) + 5 * self.context(images.mean((2, 3), keepdim=True))
        return {"out": self.drop(logits)}


@pytest.fixture
def toy() -> Toy:
    return Toy().eval()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 97, 129, generator=torch.Generator().manual_seed(1))


def literal_slide(model: nn.Module, images: Tensor, crop: tuple[int, int], stride: tuple[int, int], softmax: bool):
    """The loop of the published evaluation codes, in numpy."""
    height, width = images.shape[-2:]
    rows = max(height - crop[0] + stride[0] - 1, 0) // stride[0] + 1
    columns = max(width - crop[1] + stride[1] - 1, 0) // stride[1] + 1
    total = np.zeros((len(images), K, height, width))
    count = np.zeros((height, width))
    for row in range(rows):
        for column in range(columns):
            bottom = min(row * stride[0] + crop[0], height)
            right = min(column * stride[1] + crop[1], width)
            top, left = max(bottom - crop[0], 0), max(right - crop[1], 0)
            with torch.no_grad():
                logits = model(images[:, :, top:bottom, left:right])["out"]
            scores = (logits.softmax(1) if softmax else logits).numpy()
            total[:, :, top:bottom, left:right] += scores
            count[top:bottom, left:right] += 1
    assert count.min() > 0
    return total / count


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_whole_is_the_model(toy: Toy, images: Tensor, average: str) -> None:
    logits = toy(images)["out"].detach()
    expected = logits.softmax(1) if average == "probabilities" else logits
    torch.testing.assert_close(infer(toy, images, average=average), expected)
    torch.testing.assert_close(infer(lambda x: toy(x)["out"], images, average=average), expected)  # a bare tensor


@pytest.mark.parametrize("average", ["probabilities", "logits"])
@pytest.mark.parametrize(
    ("crop", "stride", "pixels"),
    [
        ((65, 65), (43, 43), (43, 43)),
        ((65, 65), None, (43, 43)),  # 2/3 of 65 is 43.3
        ((32, 48), (32, 48), (32, 48)),  # no overlap but at the shifted last window
        ((40, 33), (0.5, 1.0), (20, 33)),
        ((97, 129), (5, 7), (5, 7)),  # exactly one window
        ((200, 50), (100, 25), (100, 25)),  # higher than the image
        ((33, 33), (32, 32), (32, 32)),  # 97 = 33 + 2 * 32: nothing to shift
    ],
)
def test_slide_is_the_literal_loop(toy: Toy, images: Tensor, crop, stride, pixels, average: str) -> None:
    ours = infer(toy, images, mode="slide", crop=crop, stride=stride, average=average)
    expected = literal_slide(toy, images, crop, pixels, softmax=average == "probabilities")
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-5, atol=1e-6)
    assert ours.dtype == torch.float32


def test_default_stride_rounds_as_the_published_settings() -> None:
    for crop, stride in ((65, 43), (769, 513), (864, 576)):
        seen: list[int] = []
        image = torch.arange(3000.0).expand(1, 3, 1, 3000)
        infer(lambda x, seen=seen: (seen.append(int(x[0, 0, 0, 0])), x)[1], image, mode="slide", crop=crop)
        assert seen[1] == stride


def test_flip_is_the_mean_with_the_mirrored_image(toy: Toy, images: Tensor) -> None:
    straight = infer(toy, images, mode="slide", crop=40, stride=31)
    mirrored = infer(toy, images.flip(-1), mode="slide", crop=40, stride=31).flip(-1)
    assert (straight - mirrored).abs().max() > 0.01  # the toy knows left from right
    both = infer(toy, images, mode="slide", crop=40, stride=31, flip=True)
    torch.testing.assert_close(both, (straight + mirrored) / 2)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("mode", ["whole", "slide"])
def test_scales_are_resized_back_and_averaged(toy: Toy, images: Tensor, mode: str, align_corners: bool) -> None:
    options = {"mode": mode, "crop": 65 if mode == "slide" else None, "flip": True}
    expected = torch.zeros(2, K, 97, 129)
    scales = (0.5, 1.0, 1.75)
    for scale in scales:
        size = {0.5: (49, 65), 1.0: (97, 129), 1.75: (170, 226)}[scale]
        scaled = F.interpolate(images, size, mode="bilinear", align_corners=align_corners)
        scores = infer(toy, scaled, **options)
        expected += F.interpolate(scores, (97, 129), mode="bilinear", align_corners=align_corners) / 3
    toy.sizes.clear()
    ours = infer(toy, images, scales=scales, align_corners=align_corners, **options)
    torch.testing.assert_close(ours, expected)
    if mode == "slide":  # the crop stays the crop at every scale
        assert set(toy.sizes) == {(2, 3, 49, 65), (2, 3, 65, 65)}
    else:
        assert toy.sizes == [s for size in ((97, 129), (49, 65), (170, 226)) for s in [(2, 3, *size)] * 2]


def test_short_side_is_the_unit_of_the_scales(toy: Toy, images: Tensor) -> None:
    """97 x 129 at a shorter side of 194 is the image at scale 2."""
    doubled = infer(toy, images, short_side=194, scales=(0.5, 1.0))
    assert toy.sizes == [(2, 3, 97, 129), (2, 3, 194, 258)]
    torch.testing.assert_close(doubled, infer(toy, images, scales=(1.0, 2.0)))
    pixels = (images[0].permute(1, 2, 0) * 255).byte().numpy()
    assert not torch.equal(predict(toy, pixels, short_side=48).mask, predict(toy, pixels).mask)
    with pytest.raises(ValueError, match="short_side: 0; give 16 or more"):
        infer(toy, images, short_side=0)


def test_bytes_are_the_same_as_floats(toy: Toy) -> None:
    image = torch.randint(0, 256, (1, 3, 60, 50), dtype=torch.uint8)
    for options in ({}, {"mode": "slide", "crop": 32}, {"scales": (0.7, 1.3), "flip": True}):
        torch.testing.assert_close(infer(toy, image, **options), infer(toy, image / 255, **options))


def test_half_precision_scores_are_accumulated_in_float32(images: Tensor) -> None:
    ours = infer(lambda x: x.half() * 100, images, mode="slide", crop=50, average="logits")
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, (images.half() * 100).float())


def test_results_are_the_callers_own(toy: Toy, images: Tensor) -> None:
    ours = infer(lambda x: x, images, average="logits")
    ours += 1  # neither the images nor an inference-mode tensor
    torch.testing.assert_close(ours, images + 1)
    assert not infer(toy, images).requires_grad


@pytest.mark.gpu
def test_scores_may_be_kept_off_the_device(images: Tensor) -> None:
    model = Toy().eval()
    expected = infer(model, images, mode="slide", crop=40, scales=(0.75, 1.0), flip=True)
    model.cuda()
    ours = infer(
        model, images, mode="slide", crop=40, scales=(0.75, 1.0), flip=True, device="cuda", accumulate_on="cpu"
    )
    assert ours.device.type == "cpu"
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-3)
    assert infer(model, images.cuda(), mode="slide", crop=40).is_cuda
    result = predict(model, np.zeros((50, 60, 3), np.uint8), mode="slide", crop=40)
    assert result.mask.device.type == result.probabilities.device.type == "cpu"


def test_options_are_checked_before_anything_runs(toy: Toy) -> None:
    calls = (
        lambda: infer(toy, torch.rand(1, 3, 70, 70), mode="slide"),
        lambda: infer(toy, torch.rand(1, 3, 70, 70), View(scales=(2.0,)), mode="slide"),
        lambda: predict(toy, "missing.png", mode="slide"),  # before the file is opened
    )
    for call in calls:
        with pytest.raises(ValueError, match=r"^crop: mode slide needs"):
            call()
    with pytest.raises(ValueError, match=r"^unknown option 'scale': did you mean 'scales'"):
        infer(toy, torch.rand(1, 3, 70, 70), scale=(2.0,))
    assert not toy.sizes


def test_a_view_is_its_options(toy: Toy, images: Tensor) -> None:
    view = View(mode="slide", crop=(40, 40), stride=(31, 31), flip=True)
    ours = infer(toy, images, view, flip=False)
    assert torch.equal(ours, infer(toy, images, mode="slide", crop=40, stride=31))
    assert not torch.equal(ours, infer(toy, images, view))


def test_wrong_shapes_are_refused(toy: Toy, images: Tensor) -> None:
    with pytest.raises(ValueError, match=r"images: torch\.int64"):
        infer(toy, torch.zeros(1, 3, 8, 8, dtype=torch.int64))
    with pytest.raises(ValueError, match="images: "):
        infer(toy, images[0])
    with pytest.raises(ValueError, match="model: scores of shape"):
        infer(lambda x: x[..., ::8, ::8], images)
    with pytest.raises(ValueError, match="image: float64"):
        predict(toy, np.zeros((8, 8, 3)))


@pytest.mark.parametrize(
    "options", [{}, {"mode": "slide", "crop": 40}, {"mode": "slide", "crop": 40, "average": "logits"}]
)
def test_predict_on_a_file(toy: Toy, tmp_path: Path, options: dict) -> None:
    array = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    Image.fromarray(array).save(tmp_path / "photo.png")
    result = predict(toy, tmp_path / "photo.png", **options)
    scores = infer(toy, torch.from_numpy(array).permute(2, 0, 1)[None] / 255, **options)[0]
    assert torch.equal(result.mask, scores.argmax(0))
    assert (result.mask.dtype, result.mask.shape) == (torch.int64, (70, 90))
    expected = scores.softmax(0) if options.get("average") == "logits" else scores
    for _ in range(2):  # computed once, the same when asked again
        torch.testing.assert_close(result.probabilities, expected)
    assert (result.classes, result.palette) == (Toy.classes, Toy.palette)
    same = predict(toy, array, **options)
    assert torch.equal(same.mask, result.mask)
    same.mask[0, 0] = 255  # an ordinary tensor
    assert predict(lambda x: x, array).classes == ()


def test_predict_uses_the_models_align_corners(toy: Toy) -> None:
    array = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    tensor = torch.from_numpy(array).permute(2, 0, 1)[None]
    toy.align_corners = True
    expected = infer(toy, tensor, scales=(0.5,), align_corners=True)[0]
    assert torch.equal(predict(toy, array, scales=(0.5,)).probabilities, expected)
    assert not torch.equal(infer(toy, tensor, scales=(0.5,))[0], expected)


@pytest.mark.parametrize("scales", [(1.0, 0.5), (0.5, 1.0, 1.5)])
def test_scores_that_are_large_are_handed_over_once(toy: Toy, monkeypatch: pytest.MonkeyPatch, scales: tuple) -> None:
    monkeypatch.setattr(engine, "ROLLING", 0)
    images = torch.rand(1, 3, 30, 40, generator=torch.Generator().manual_seed(1))
    seen, expected = engine.look(toy, images, View(scales=scales)), infer(toy, images, scales=scales)
    with torch.no_grad():
        assert torch.equal(seen.best(), expected.argmax(1))
        runs = len(toy.sizes)
        for times in (0, len(scales)):  # the first time what is kept, then the model once more
            given = seen.scores()
            assert torch.equal(given, expected)
            assert len(toy.sizes) == runs + times
            given.zero_()


BIG = """
import json, resource, sys, time
import numpy as np, torch
from torch import nn
from nonlocalseg.inference.predictor import predict
from nonlocalseg.models.creation import create_model
torch.set_num_threads(1)
net = nn.Conv2d(3, 19, 1)
array = np.random.default_rng(0).integers(0, 256, (4000, 6000, 3), dtype=np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.time()
result = predict(net, array, mode="slide", crop=769, **json.loads(sys.argv[1]))
mask = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert result.mask.shape == (4000, 6000)
total = float(result.probabilities[:, ::400, ::400].sum(0).sub(1).abs().max())
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps(dict(before=before / 2**20, mask=mask / 2**20, peak=peak / 2**20, s=time.time() - start, off=total)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"average": "logits", "flip": True}, {"scales": (0.5, 1.0), "flip": True}])
def test_a_photograph_of_24_megapixels_takes_less_than_4_gigabytes(options: dict) -> None:
    command = [sys.executable, "-c", BIG, json.dumps(options)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    figures = json.loads(answer)
    print(options, figures)  # GiB
    assert figures["off"] < 1e-5
    assert figures["peak"] * 2**30 < 4e9


@pytest.mark.parametrize("size", [(16, 16), (16, 41), (19, 16)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"flip": True, "scales": (0.5, 1.0, 1.75)},
        {"mode": "slide", "crop": (24, 17), "scales": (0.25, 1.0)},
        {"mode": "slide", "crop": 40, "small": "pad"},
        {"short_side": 16, "scales": (0.5,), "average": "logits", "image_resize": "opencv"},
    ],
)
def test_every_mode_takes_images_from_16_pixels_up(size: tuple[int, int], options: dict) -> None:
    model = create_model("ann", "test_resnet.r160_in1k", num_classes=3, auxiliary=False).eval()
    array = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    result = predict(model, array, **options)
    assert result.mask.shape == size
    assert result.probabilities.isfinite().all()


@pytest.mark.parametrize(
    ("view", "passes"),
    [
        (View(average="logits"), 1),
        (View(), 1),
        (View(flip=True, scales=(0.5, 1.0)), 4),
        (View(average="logits", flip=True, scales=(0.5, 1.0)), 4),
        (View(mode="slide", crop=(48, 64), stride=(32, 32)), 12),
        (View(mode="slide", crop=(48, 64), stride=(32, 32), average="logits", flip=True), 24),
        (View(softmax="image", flip=True), 2),
    ],
    ids=str,
)
@pytest.mark.parametrize("rolling", [0, engine.ROLLING])
def test_the_probability_of_the_best_class(monkeypatch, toy, images, view, passes, rolling):
    monkeypatch.setattr(engine, "ROLLING", rolling)
    toy.num_classes, counted = K, []
    seen = engine.look(toy, images, view, before_pass=lambda: counted.append(1))
    with torch.no_grad():
        classes, probability = seen.best_and_probability()
    assert len(counted) == seen.passes == passes
    scores = infer(toy, images, view)
    expected = scores.softmax(1) if view.average == "logits" else scores
    torch.testing.assert_close(probability, expected.amax(1), atol=1e-5, rtol=0)
    assert torch.equal(classes, infer(toy, images, view).argmax(1))


def test_what_runs_before_a_pass_can_stop_it(toy, images):
    def stop() -> None:
        raise InterruptedError("enough")

    with pytest.raises(InterruptedError, match="enough"):
        engine.look(toy, images, View(), before_pass=stop).best()
    assert toy.sizes == []
