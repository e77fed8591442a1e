"""The weights shown are those used: outputs are recomputed from them; places, stages and features are where they belong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

import nonlocalseg as nls
from nonlocalseg.blocks.folding import FoldedFusion
from nonlocalseg.explanation.collect import Explanation, explain
from nonlocalseg.explanation.features import feature_components, principal_components
from nonlocalseg.losses import SegmentationLoss
from nonlocalseg.values import changed
from nonlocalseg.view import View

SIZES = {"channels": 8, "key_channels": 8}
IMAGE = np.random.default_rng(0).integers(0, 256, (52, 75, 3), dtype=np.uint8)
PIXEL = (38, 21)


def small(name: str, backbone: str = "test_resnet.r160_in1k", **options) -> nls.Segmenter:
    """A model whose norms, biases and zero-initialised W_o are all random, so that nothing cancels."""
    torch.manual_seed(0)
    model = nls.create_model(name, backbone, num_classes=5, **{**SIZES, "auxiliary": False, **options}).eval()
    for key, value in model.head.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.rand_like(value) - (0.0 if "running_var" in key else 0.5))
    return model


def inputs(model: nls.Segmenter) -> dict[int, torch.Tensor]:
    with torch.no_grad():
        return model.features(torch.from_numpy(IMAGE).permute(2, 0, 1)[None].float() / 255)


def cell_of(pixel: tuple[int, int], feature: torch.Tensor) -> tuple[int, int]:
    """Row and column; the test networks never pad."""
    return pixel[1] * feature.shape[2] // IMAGE.shape[0], pixel[0] * feature.shape[3] // IMAGE.shape[1]


def pooled(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([F.adaptive_avg_pool2d(x, n).flatten(2) for n in (1, 3, 6, 8)], dim=2)[0]


@torch.no_grad()
@pytest.mark.parametrize("folded", [False, True])
def test_the_weights_shown_give_the_outputs(folded: bool) -> None:
    """APNB's and AFNB's outputs at one pixel, from the equations and the weights of the explanation alone."""
    model = small("ann")
    model = nls.fold(model) if folded else model
    features = inputs(model)
    x = model.head.between(model.head.fusion(features[5], features[4]))
    seen = explain(model, IMAGE, PIXEL).attention
    assert set(seen) == {"context", "fusion4"}
    block, (row, column) = model.head.context, cell_of(PIXEL, x)
    branch = block.branches[0]
    values = pooled(branch.value(x)) @ seen["context"].weights  # [E]
    context = branch.out(values[None, :, None, None])
    here = x[:, :, row : row + 1, column : column + 1]
    joined = context + block.fuse.conv(here) if folded else block.fuse.conv(torch.cat([context, here], dim=1))
    torch.testing.assert_close(block.fuse.finish(joined)[0, :, 0, 0], block(x)[0, :, row, column], rtol=1e-4, atol=1e-5)
    fusion, branch = model.head.fusion, model.head.fusion.branches[0]
    values = pooled(branch.value(features[4]))
    if not folded:
        context = branch.out((values @ seen["fusion4"].weights)[None, :, None, None])
        high = features[5][:, :, row : row + 1, column : column + 1]
        expected = fusion.fuse(torch.cat([context, high], dim=1))[0, :, 0, 0]
        torch.testing.assert_close(expected, fusion(features[5], features[4])[0, :, row, column], rtol=1e-4, atol=1e-5)
        return
    assert isinstance(fusion, FoldedFusion)  # its output mixes the weights of nine cells
    total = fusion.direct(features[5])[0, :, row, column]
    for offset in range(9):
        at = row + offset // 3 - 1, column + offset % 3 - 1
        pixel = (at[1] * IMAGE.shape[1] // x.shape[3] + 4, at[0] * IMAGE.shape[0] // x.shape[2] + 4)
        assert cell_of(pixel, x) == at
        weights = explain(model, IMAGE, pixel).attention["fusion4"].weights
        total = (
            total + fusion.spread[0]((values @ weights)[None, :, None, None])[0, :, 0, 0].unflatten(0, (9, -1))[offset]
        )
    torch.testing.assert_close(
        fusion.act(total), fusion(features[5], features[4])[0, :, row, column], rtol=1e-4, atol=1e-4
    )


@torch.no_grad()
def test_plain_and_folded_models_show_the_same() -> None:
    model = small("ann", fuse=(3, 4))
    plain, folded = explain(model, IMAGE, PIXEL), explain(nls.fold(model), IMAGE, PIXEL)
    assert set(plain.attention) == {"context", "fusion3", "fusion4"}
    for name, seen in plain.attention.items():
        torch.testing.assert_close(seen.weights.sum(), torch.tensor(1.0))
        torch.testing.assert_close(folded.attention[name].weights, seen.weights, rtol=1e-3, atol=1e-5)
        assert torch.equal(folded.attention[name].boxes, seen.boxes)


def test_anchors_lie_where_they_average() -> None:
    found = explain(small("ann"), IMAGE, PIXEL)
    for seen in found.attention.values():
        assert seen.levels.bincount().nonzero().flatten().tolist() == [1, 3, 6, 8]
        for n in (1, 3, 6, 8):
            boxes = seen.boxes[seen.levels == n]
            assert boxes[:, :2].min(0).values.tolist() == [0, 0]
            torch.testing.assert_close(boxes[:, 2:].max(0).values, torch.tensor([75.0, 52.0]))
        left, top, right, bottom = seen.boxes[1 + 4].tolist()  # the middle one of 3 x 3
        assert abs((left + right) / 2 - 37.5) < 8
        assert abs((top + bottom) / 2 - 26) < 8
        assert right - left < 75 / 2
    index = seen.top(1)[0]
    assert seen.weights[index] == seen.weights.max()
    left, top, right, bottom = seen.boxes[index].round().long().tolist()
    assert seen.classes[index] == found.prediction[top:bottom, left:right].flatten().mode().values
    first = seen.listed(("a", "b", "c", "d", "e"), 110)
    assert torch.equal(seen.weights[[i for i, _ in first]], seen.weights.sort(descending=True).values)
    assert next(text for i, text in first if i == 5).endswith("(3 × 3, row 2, column 2)")
    with torch.no_grad():
        model = small("ann")
        mask = model(torch.from_numpy(IMAGE).permute(2, 0, 1)[None].float() / 255)["out"][0].argmax(0)
    assert torch.equal(found.prediction, mask)


def test_random_anchors_are_the_positions_drawn() -> None:
    model = small("ann", sampling="pyramid_random")
    seen = explain(model, IMAGE, PIXEL).attention["context"]
    high, wide = inputs(model)[5].shape[-2:]
    positions = model.head.context.branches[0].sampling.positions(high, wide)
    torch.testing.assert_close(seen.boxes[:, 0], torch.clamp((positions % wide) * (75 / wide), max=75))
    torch.testing.assert_close(seen.boxes[:, 1], (positions // wide) * (52 / high))


class Largest(TorchFunctionMode):
    """Remembers the size of the largest tensor made within."""

    elements = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.elements = max(self.elements, result.numel())
        return result


@pytest.mark.parametrize(
    ("name", "options", "key", "halved"),
    [
        ("nonlocal", {}, "context", False),
        ("fnb", {}, "fusion4", False),
        ("gald", {"aggregate": "nonlocal", "distribute": "none"}, "aggregate", True),
        ("gald", {"aggregate": "apnb", "distribute": "none", "arrangement": "gald"}, "aggregate", True),
    ],
)
def test_one_row_of_the_whole_attention(name: str, options: dict, key: str, halved: bool) -> None:
    """At any place, in halved maps too, without the N x N matrix."""
    model = small(name, **options)
    image = np.random.default_rng(1).integers(0, 256, (201, 260, 3), dtype=np.uint8)
    with torch.inference_mode():
        whole = model.attention_maps(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255)[key][0]
    high, wide = (13, 17) if halved else (26, 33)
    assert len(whole) == high * wide
    for pixel in ((0, 0), (259, 200), (100, 150)):
        with Largest() as largest:
            seen = explain(model, image, pixel).attention[key]
        place = pixel[1] * high // 201 * wide + pixel[0] * wide // 260
        torch.testing.assert_close(seen.weights, whole[place], rtol=1e-4, atol=1e-7)
        if not halved:
            assert largest.elements < whole.numel()
    if "apnb" not in options.values():
        assert not seen.levels.any()
        left, top, right, bottom = seen.boxes[place].tolist()
        assert left <= pixel[0] < right
        assert top <= pixel[1] < bottom


@pytest.mark.parametrize("pixel", [PIXEL, (0, 0), (74, 51)])
def test_local_weights_give_the_output_of_ldv2(pixel: tuple[int, int]) -> None:
    model = small("galdv2", distribute_dilation=2, distribute_kernel_size=3)
    features, head = inputs(model), model.head
    (seen,) = explain(model, IMAGE, pixel).local.values()
    with torch.no_grad():
        x_g, x_l = head.aggregate(head.reduce(features[5])), head.local(features[5])
        values = head.distribute.value(torch.cat([x_l, x_g], dim=1))
        row, column = cell_of(pixel, x_g)
        gathered = torch.zeros_like(values[:, :, :1, :1])
        for i, j in np.ndindex(3, 3):
            y, x = row + 2 * (i - 1), column + 2 * (j - 1)
            inside = 0 <= y < values.shape[2] and 0 <= x < values.shape[3]
            assert seen.inside[i, j] == inside
            if inside:
                gathered += seen.weights[i, j] * values[:, :, y : y + 1, x : x + 1]
        expected = head.distribute(x_g, x_l)[0, :, row, column]
    torch.testing.assert_close(head.distribute.out(gathered)[0, :, 0, 0], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(seen.weights.sum(), torch.tensor(1.0))
    left, top, right, bottom = seen.boxes[1, 1].tolist()
    assert left <= pixel[0] < right
    assert top <= pixel[1] < bottom
    torch.testing.assert_close(seen.boxes[1, 2] - seen.boxes[1, 1], torch.tensor([15.0, 0, 15, 0]))  # two cells of 7.5


def test_masks_are_those_of_ldv1() -> None:
    model = small("galdv1")
    found = explain(model, IMAGE, PIXEL)
    (mask,) = found.masks.values()
    assert mask.title == "the mask of LDv1"
    assert not found.local
    assert not found.attention
    head = model.head
    with torch.no_grad():
        x = head.aggregate(head.reduce(inputs(model)[5]))
        torch.testing.assert_close(x * (1 + mask.values), head.distribute(x))


def test_padding_is_left_out() -> None:
    """A 16-pixel patch on an image of no multiple of it: boxes end with the image, cells beyond it have no class."""
    model = small("ann", "test_vit.r160_in1k")
    found = explain(model, IMAGE, (74, 51))
    multiple = model.backbone.multiple
    assert IMAGE.shape[0] % multiple
    seen = found.attention["context"]
    assert found.prediction.shape == (52, 75)
    assert (seen.boxes[:, 2] <= 75).all()
    assert (seen.boxes[:, 3] <= 52).all()
    empty = (seen.boxes[:, 2] <= seen.boxes[:, 0]) | (seen.boxes[:, 3] <= seen.boxes[:, 1])
    assert torch.equal(seen.classes == 255, empty)
    maps = feature_components({"vit": model}, IMAGE).components["vit"][5]
    assert maps.shape == (3, -(-52 // multiple), -(-75 // multiple))


@pytest.mark.parametrize(
    ("options", "stages"),
    [
        ({"arrangement": "gald"}, ["fcn", "ga", "gald"]),
        ({"arrangement": "ldga"}, ["fcn", "ld", "ldga"]),
        ({"arrangement": "parallel", "aggregate": "psp"}, ["fcn", "ga", "ld"]),
        ({"aggregate": "aspp", "distribute": "ldv2"}, ["fcn", "ga", "gald"]),
        ({"distribute": "none"}, ["fcn", "ga"]),
    ],
)
def test_stage_heads_learn_without_teaching(options: dict, stages: list[str]) -> None:
    sizes = {} if options.get("aggregate") == "psp" else {"key_channels": 8}
    torch.manual_seed(0)
    model = nls.create_model(
        "gald",
        "test_resnet.r160_in1k",
        num_classes=5,
        stage_heads=True,
        auxiliary=False,
        channels=8,
        **sizes,
        **options,
    ).train()
    outputs = model(torch.rand(2, 3, 40, 56))
    assert set(outputs) == {"out", *(f"stage_{name}" for name in stages)}
    target = torch.randint(0, 5, (2, 40, 56))
    losses = SegmentationLoss(ohem=False)(outputs, target)
    extra = sum(losses[f"stage_{name}"] for name in stages)
    torch.testing.assert_close(losses["loss"], losses["main"] + extra)
    extra.backward()
    taught = {name.rpartition(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert taught == {f"head.stage_heads.{name}" for name in stages}
    found = explain(model, IMAGE, PIXEL)
    assert model.training
    assert list(found.stages) == stages
    assert all(mask.shape == (52, 75) for mask in found.stages.values())


def test_stage_heads_are_saved_and_show_what_they_score(tmp_path) -> None:
    model = small("galdv1", stage_heads=True)
    again = nls.from_pretrained(model.save_pretrained(tmp_path))
    found = explain(again, IMAGE, PIXEL)
    head = model.head
    with torch.no_grad():
        aggregated = head.aggregate(head.reduce(inputs(model)[5]))
        scores = F.interpolate(head.stage_heads["ga"](aggregated), (52, 75), mode="bilinear")
    assert torch.equal(found.stages["ga"], scores[0].argmax(0))
    other = nls.from_pretrained(tmp_path, classes=["one", "two"])
    assert explain(other, IMAGE, PIXEL).stages["fcn"].max() < 2
    with pytest.raises(ValueError, match="stage_heads has no effect on model 'ann'"):
        small("ann", stage_heads=True)


def test_components_are_those_of_the_variance() -> None:
    generator = torch.Generator().manual_seed(0)
    strength = torch.tensor([8.0, 4.0, 2.0, 0.5])[:, None, None]
    sources = torch.randn(4, 30, 40, generator=generator) * strength
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=generator)).Q
    mixed = torch.einsum("ij,jhw->ihw", rotation, sources) + 7
    (parts,), (shares,) = principal_components([mixed])
    for component in range(3):
        both = torch.stack([parts[component].flatten(), sources[component].flatten()])
        assert abs(torch.corrcoef(both)[0, 1]) > 0.9  # but for what is clipped
    expected = (strength**2 / (strength**2).sum()).flatten()[:3].tolist()
    assert shares == pytest.approx(expected, abs=0.05)
    assert 0 <= parts.min() < 0.1 < 0.9 < parts.max() <= 1
    (one, two), both_shares = principal_components([mixed, mixed[:, :15] + 1])
    assert one.shape == (3, 30, 40)
    assert two.shape == (3, 15, 40)
    assert len(both_shares) == 2
    narrow = principal_components([mixed[:2]])[0][0]
    assert narrow.shape == (3, 30, 40)
    assert (narrow[2] == 0.5).all()


def test_each_map_is_seen_around_its_mean_in_units_of_its_spread() -> None:
    """The basis is shared, the scale is each map's own: the same picture ten times as strong has the same colours."""
    generator = torch.Generator().manual_seed(0)
    strength = torch.tensor([8.0, 4.0, 2.0, 0.5])[:, None, None]
    one = torch.randn(4, 30, 40, generator=generator) * strength
    (weak, strong, other), _ = principal_components([one, 10 * one + 3, one.flip(0)])
    torch.testing.assert_close(weak, strong, atol=1e-4, rtol=0)
    assert (other - weak).abs().mean() > 0.05
    points = one.flatten(1).double()
    both = torch.stack([torch.cov(x, correction=0) for x in (points, 10 * points + 3, points.flip(0))]).mean(0)
    basis = torch.linalg.eigh(both).eigenvectors[:, -1]
    basis = basis * basis[basis.abs().argmax()].sign()
    expected = basis @ (points - points.mean(1, keepdim=True))
    expected = (expected / (4 * expected.std(correction=0)) + 0.5).clamp(0, 1).view(30, 40)
    torch.testing.assert_close(weak[0].double(), expected, atol=1e-5, rtol=0)


def test_a_basis_for_each_model_on_request() -> None:
    one, two = _fcn(0), _fcn(1)
    apart = feature_components({"one": one, "two": two}, IMAGE, stages=(5,), shared=False)
    alone = feature_components({"two": two}, IMAGE, stages=(5,))
    assert not apart.shared
    assert torch.equal(apart.components["two"][5], alone.components["two"][5])
    assert not torch.equal(
        feature_components({"one": one, "two": two}, IMAGE, stages=(5,)).components["two"][5],
        alone.components["two"][5],
    )


def test_models_of_one_width_share_a_basis() -> None:
    one, two = _fcn(0), _fcn(1)
    same = feature_components({"one": one, "again": one, "two": two}, IMAGE)
    assert same.shared
    assert set(same.components["one"]) == set(one.backbone.channels)
    for stage in one.backbone.channels:
        assert torch.equal(same.components["one"][stage], same.components["again"][stage])
        assert not torch.equal(same.components["one"][stage], same.components["two"][stage])
    mixed = feature_components({"one": one, "other": _fcn(0, "test_vit.r160_in1k")}, IMAGE, stages=(5,))
    assert not mixed.shared
    assert list(mixed.components["other"]) == [5]
    with pytest.raises(ValueError, match="stages: stage 9 is missing"):
        feature_components({"one": one}, IMAGE, stages=(9,))


def _fcn(seed: int, backbone: str = "test_resnet.r160_in1k") -> nls.Segmenter:
    torch.manual_seed(seed)
    return nls.create_model("fcn", backbone, num_classes=3, channels=8, auxiliary=False).eval()


@torch.no_grad()
def test_confidence_is_the_probability_of_the_prediction() -> None:
    """From the scores that the explanation holds: the model is not run again."""
    model = small("ann")
    found = explain(model, IMAGE, PIXEL)
    probabilities = model(torch.from_numpy(IMAGE).permute(2, 0, 1)[None].float() / 255)["out"][0].softmax(0)
    torch.testing.assert_close(found.confidence(), probabilities.amax(0))
    assert torch.equal(found.prediction, probabilities.argmax(0))


def test_a_large_photograph_is_seen_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is found there is told in pixels of the photograph."""
    monkeypatch.setattr("nonlocalseg.explanation.collect.LARGEST", 52 * 75)
    model, large = small("ann"), IMAGE.repeat(2, 0).repeat(2, 1)
    found, plain = explain(model, large, (2 * PIXEL[0], 2 * PIXEL[1])), explain(model, IMAGE, PIXEL)
    assert found.seen == plain.seen == (52, 75)
    assert found.prediction.shape == found.confidence().shape == (104, 150)
    assert (found.prediction[1::2, 1::2] == plain.prediction).float().mean() > 0.9
    for name, seen in plain.attention.items():
        torch.testing.assert_close(found.attention[name].boxes, 2 * seen.boxes)
        torch.testing.assert_close(found.attention[name].weights, seen.weights, rtol=1e-3, atol=1e-5)
    assert explain(model, large, PIXEL, short_side=104).seen == (104, 150)
    small_features = feature_components({"one": model}, large, stages=(5,)).components["one"][5]
    assert small_features.shape == feature_components({"one": model}, IMAGE, stages=(5,)).components["one"][5].shape
    assert nls.predict(model, large, short_side=52).mask.equal(found.prediction)


def test_the_view_of_the_model_is_used() -> None:
    model = small("ann")
    assert model.config is not None
    model.config = changed(model.config, {"view": View(short_side=40, scales=(0.5, 1.0), flip=True)})
    assert explain(model, IMAGE, PIXEL).seen == (40, 58)


@pytest.mark.parametrize(
    ("image", "pixel", "message"),
    [
        (IMAGE, (75, 0), "pixel: 75 0 is outside the image; x runs from 0 to 74, y from 0 to 51"),
        (IMAGE, (0, -1), "pixel: 0 -1 is outside"),
        (IMAGE[..., 0], (0, 0), "give a path or an RGB array"),
    ],
)
def test_mistakes_are_named(image: np.ndarray, pixel: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        explain(_fcn(0), image, pixel)


def test_models_without_attention_have_a_prediction_only() -> None:
    found = nls.explain(_fcn(0), IMAGE, PIXEL)
    assert isinstance(found, Explanation)
    assert (found.attention, found.local, found.masks, found.stages) == ({}, {}, {}, {})
    assert found.prediction.shape == (52, 75)
