"""Losses against stored outputs of three implementations, literal references, and the cases that break others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nonlocalseg.losses import (
    SegmentationLoss,
    cross_entropy,
    dice_loss,
    focal_loss,
    lovasz_softmax,
    ohem_cross_entropy,
    presence_loss,
)

Case = tuple[str, float | None, int, Any, Any, float, int]
STORED = np.load(Path(__file__).parent / "golden" / "ohem.npz")
MISSPELT: Any = "anm"
RULES: tuple[Any, ...] = ("ann", "ann_official", "gald", "mmseg", "top_k")
LOSSES = [cross_entropy, dice_loss, lovasz_softmax, focal_loss] + [
    lambda x, t, rule=rule, **kw: ohem_cross_entropy(x, t, rule=rule, **kw) for rule in RULES
]

# what ANN's, GALD's and mmsegmentation's own code returned:
# case, threshold, min_kept, rule and average that reproduce it, loss, pixels with a gradient
CASES: list[Case] = [
    ("thresh_rules.now.ann", 0.7, 50, "ann_official", None, 1.7826052, 490),
    ("thresh_rules.now.gald", 0.7, 50, "gald", None, 1.7826052, 490),
    ("thresh_rules.now.mmseg", 0.7, 50, "mmseg", None, 0.5870138, 490),
    ("thresh_rules.now.mmseg_avg_non_ignore", 0.7, 50, "mmseg", "valid", 0.8674046, 490),
    ("thresh_rules.cw.ann", 0.7, 50, "ann_official", None, 1.7862554, 490),
    ("thresh_rules.cw.gald", 0.7, 50, "gald", None, 1.7826942, 490),
    ("min_kept_rules.now.ann", 0.05, 400, "ann_official", None, 2.0701380, 400),
    ("min_kept_rules.now.gald", 0.05, 400, "gald", None, 2.0701377, 400),
    ("min_kept_rules.now.mmseg", 0.05, 400, "mmseg", None, 0.6120917, 800),
    ("min_kept_rules.now.mmseg_avg_non_ignore", 0.05, 400, "mmseg", "valid", 0.9044611, 800),
    ("min_kept_rules.cw.ann", 0.05, 400, "ann_official", None, 2.0753629, 400),
    ("min_kept_rules.cw.gald", 0.05, 400, "gald", None, 2.0680776, 400),
    ("min_kept_above_valid.now.ann", 0.7, 5000, "ann_official", None, 0.9073965, 1006),
    ("min_kept_above_valid.now.gald", 0.7, 5000, "gald", None, 0.9064957, 1007),
    ("min_kept_above_valid.now.mmseg", 0.7, 5000, "mmseg", None, 0.6134683, 1006),
    ("min_kept_above_valid.now.mmseg_avg_non_ignore", 0.7, 5000, "mmseg", "valid", 0.9064954, 1006),
    ("min_kept_above_valid.cw.ann", 0.7, 5000, "ann_official", None, 0.9089633, 1006),
    ("min_kept_above_valid.cw.gald", 0.7, 5000, "gald", None, 0.9081801, 1007),
    ("thresh_none_topk.now.mmseg", None, 100, "mmseg", None, 0.3965705, 200),
    ("thresh_none_topk.now.mmseg_avg_non_ignore", None, 100, "mmseg", "valid", 0.5859949, 200),
    ("no_ignore.thresh_rules.cw.ann", 0.7, 50, "ann_official", None, 1.7891191, 707),
    ("no_ignore.thresh_rules.cw.gald", 0.7, 50, "gald", None, 1.7837430, 707),
    ("no_ignore.thresh_rules.cw.mmseg", 0.7, 50, "mmseg", None, 0.8490731, 707),
    ("no_ignore.thresh_rules.cw.mmseg_avg_non_ignore", 0.7, 50, "mmseg", "valid", 0.8490731, 707),
    ("no_ignore.min_kept_rules.cw.ann", 0.05, 400, "ann_official", None, 2.5784063, 400),
    ("no_ignore.min_kept_rules.cw.gald", 0.05, 400, "gald", None, 2.5581336, 400),
    ("no_ignore.min_kept_rules.cw.mmseg", 0.05, 400, "mmseg", None, 0.8664224, 800),
    ("no_ignore.min_kept_rules.cw.mmseg_avg_non_ignore", 0.05, 400, "mmseg", "valid", 0.8664224, 800),
]


def stored(name: str) -> tuple[Tensor, Tensor, Tensor | None]:
    """The logits, labels and class weights a case was made with."""
    label = STORED["label_no_ignore" if name.startswith("no_ignore") else "label"]
    weights = torch.from_numpy(STORED["class_weight"]) if ".cw." in name else None
    return torch.from_numpy(STORED["logit"]).requires_grad_(), torch.from_numpy(label).long(), weights


def drawn(batch: int = 2, classes: int = 4, size: tuple[int, int] = (5, 7), seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(batch, classes, *size, generator=generator, dtype=torch.float64)
    target = torch.randint(classes, (batch, *size), generator=generator)
    target[torch.rand(target.shape, generator=generator) < 0.3] = 255
    return logits.requires_grad_(), target


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_ohem_returns_what_each_implementation_returned(case):
    name, threshold, min_kept, rule, average, expected, pixels = case
    logits, target, weights = stored(name)
    loss = ohem_cross_entropy(logits, target, threshold, min_kept, rule, weights, average=average)
    loss.backward()
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    assert logits.grad is not None
    assert int((logits.grad.abs().sum(1) > 0).sum()) == pixels


@pytest.mark.shared
@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_ohem_gradient_is_each_implementations(case, shared):
    from safetensors import safe_open

    name, threshold, min_kept, rule, average, _, _ = case
    with safe_open(shared / "golden" / "j_ohem.safetensors", "pt") as file:
        expected = file.get_tensor(f"grad.{name}")
        expected_loss = file.get_tensor(f"loss.{name}").item()
    logits, target, weights = stored(name)
    loss = ohem_cross_entropy(logits, target, threshold, min_kept, rule, weights, average=average)
    loss.backward()
    assert loss.item() == pytest.approx(expected_loss, abs=1e-6)
    torch.testing.assert_close(logits.grad, expected, rtol=1e-5, atol=1e-9)


@pytest.mark.shared
def test_every_stored_ohem_case_is_tested(shared):
    cases = json.loads((shared / "golden" / "j_ohem.json").read_text())["cases"]
    plain = {name for name, case in cases.items() if "error" not in case and "thresh" in case}
    assert plain == {case[0] for case in CASES}


@pytest.mark.shared
def test_two_headed_losses_are_the_stored_ones(shared):
    from safetensors.torch import load_file

    data = load_file(shared / "golden" / "j_ohem.safetensors")
    target = data["label"].long()
    ann = SegmentationLoss(rule="ann_official", min_kept=50 // len(target), class_weights=data["class_weight"])
    main, aux = (data[name].clone().requires_grad_() for name in ("logit", "logit_aux"))
    loss = ann({"out": main, "aux": aux}, target)["loss"]
    loss.backward()
    assert loss.item() == pytest.approx(data["loss.ann_aux_ohem"].item(), abs=2e-6)
    torch.testing.assert_close(main.grad, data["grad.ann_aux_ohem.main"], rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(aux.grad, data["grad.ann_aux_ohem.aux"], rtol=1e-5, atol=1e-9)
    small = ann({"out": data["logit"], "aux": data["logit_low"]}, target)["loss"]
    assert small.item() == pytest.approx(data["loss.ann_aux_ohem_low_res_aux"].item(), abs=2e-6)

    low = [data[name].clone().requires_grad_() for name in ("logit_low", "logit_low_aux")]
    out, aux = (F.interpolate(x, size=target.shape[1:], mode="bilinear", align_corners=True) for x in low)
    loss = SegmentationLoss(rule="gald", min_kept=50 // len(target))({"out": out, "aux": aux}, target)["loss"]
    loss.backward()
    assert loss.item() == pytest.approx(data["loss.gald_criterion_ohem_dsn"].item(), abs=2e-6)
    for x, name in zip(low, ("main", "aux"), strict=True):
        torch.testing.assert_close(x.grad, data[f"grad.gald_criterion_ohem_dsn.{name}"], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    ("name", "average", "expected"),
    [("plain.now", "all", 0.6134685), ("plain.now", "valid", 0.9064957), ("plain.cw.", "valid", 0.9081801)],
)
def test_cross_entropy_is_mmsegs_and_torchs(name, average, expected):
    logits, target, weights = stored(name)
    loss = cross_entropy(logits, target, weights, average=average)
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    if average == "valid":
        assert loss.item() == pytest.approx(F.cross_entropy(logits, target, weights, ignore_index=255).item(), abs=1e-6)


def literal_ohem(
    logits: Tensor, target: Tensor, threshold: float, k: int, rule: str, weights: Tensor | None = None
) -> Any:
    """The definitions, one pixel at a time."""
    pixels = []  # probability of the true class, loss, weight
    for b, y, x in np.ndindex(*target.shape):
        label = int(target[b, y, x])
        if label != 255:
            p = logits[b, :, y, x].softmax(0)[label]
            pixels.append((p, -p.log(), 1.0 if weights is None else weights[label]))
    n, ranked = len(pixels), sorted(p.item() for p, _, _ in pixels)
    k = k * len(target) if rule == "mmseg" else k
    if rule == "top_k":
        order = sorted(range(n), key=lambda i: -(pixels[i][1] * pixels[i][2]).item())
        kept = [pixels[i] for i in order[:k]]
    elif rule == "gald":
        limit = max(threshold, ranked[k - 1]) if 0 < k <= n else threshold
        kept = [pixel for pixel in pixels if k > n or pixel[0].item() <= limit]
    else:
        limit = max(threshold, ranked[min(k, n - 1)])
        kept = [pixel for pixel in pixels if (rule == "ann" and k >= n) or pixel[0].item() < limit]
    total = sum(loss * weight for _, loss, weight in kept)
    if rule == "ann_official":
        return total / len(kept)
    if rule == "mmseg":
        return total / (target.numel() if weights is None else sum(weight for _, _, weight in pixels))
    return total / sum(weight for _, _, weight in kept)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("threshold", "min_kept"), [(0.7, 1), (0.05, 20), (0.3, 15), (0.7, 51), (0.7, 50), (0.2, 5000)]
)
def test_ohem_is_the_literal_definition(rule, weighted, threshold, min_kept):
    logits, target = drawn()
    assert int((target != 255).sum()) == 51  # so that min_kept=51 is k = n
    weights = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64) if weighted else None
    loss = ohem_cross_entropy(logits, target, threshold, min_kept, rule, weights)
    expected = literal_ohem(logits, target, threshold, min_kept, rule, weights)
    torch.testing.assert_close(loss, expected)
    (ours,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(ours, torch.autograd.grad(expected, logits)[0])


def test_default_rule_keeps_every_valid_pixel_of_a_small_batch():
    logits, target = drawn()
    expected = F.cross_entropy(logits, target, ignore_index=255)
    torch.testing.assert_close(ohem_cross_entropy(logits, target), expected)
    assert ohem_cross_entropy(logits, target, rule="ann_official") > expected  # drops the most confident


def test_top_k_losses_of_mmseg_are_top_k_with_another_divisor():
    logits, target = drawn()
    top_k = ohem_cross_entropy(logits, target, rule="top_k", min_kept=20, average="all")
    torch.testing.assert_close(ohem_cross_entropy(logits, target, None, 10, "mmseg"), top_k)


@pytest.mark.parametrize("loss", LOSSES)
def test_nothing_valid_is_zero_with_zero_gradient(loss):
    logits, target = drawn()
    value = loss(logits, torch.full_like(target, 255))
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize("rule", RULES)
def test_weights_of_zero_are_zero_not_nan(rule):
    logits, target = drawn()
    loss = ohem_cross_entropy(logits, target, rule=rule, class_weights=torch.zeros(4))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("ignore_index", [255, -1])
def test_ignored_pixels_take_no_part(loss, ignore_index):
    logits, target = drawn()
    void = target == 255
    target[void] = ignore_index
    other = logits.detach() + 9 * torch.randn_like(logits) * void[:, None]
    other.requires_grad_()
    value, same = (loss(x, target, ignore_index=ignore_index) for x in (logits, other))
    torch.testing.assert_close(value, same)
    same.backward()
    assert other.grad is not None
    assert not other.grad.movedim(1, -1)[void].any()
    assert other.grad.movedim(1, -1)[~void].any()


@pytest.mark.parametrize("loss", LOSSES)
def test_half_precision_is_computed_in_single(loss):
    logits, target = drawn()
    half = logits.detach().bfloat16().requires_grad_()
    value = loss(half, target)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(half.detach().float(), target))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(loss(half, target), value)
    value.backward()
    assert half.grad is not None
    assert half.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("loss", LOSSES)
def test_runs_with_deterministic_algorithms(loss):
    logits, target = drawn()
    torch.use_deterministic_algorithms(True)
    try:
        loss(logits, target).backward()
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.gpu
@pytest.mark.parametrize("loss", LOSSES)
def test_cuda_is_deterministic_and_equals_the_cpu(loss):
    logits, target = drawn()
    torch.use_deterministic_algorithms(True)
    try:
        there = logits.detach().cuda().requires_grad_()
        value = loss(there, target.cuda())
        value.backward()
    finally:
        torch.use_deterministic_algorithms(False)
    expected = loss(logits, target)
    expected.backward()
    torch.testing.assert_close(value.cpu(), expected)
    assert there.grad is not None
    torch.testing.assert_close(there.grad.cpu(), logits.grad)


def test_dice_is_its_definition():
    logits, target = drawn()
    target[target == 2] = 255  # class 2 is absent: left out
    expected = []
    for label in (0, 1, 3):
        overlap = area = torch.zeros(())
        for b, y, x in np.ndindex(*target.shape):
            if target[b, y, x] != 255:
                p, truth = logits[b, :, y, x].softmax(0)[label], float(target[b, y, x] == label)
                overlap, area = overlap + p * truth, area + p + truth
        expected.append(1 - 2 * overlap / area)
    torch.testing.assert_close(dice_loss(logits, target), torch.stack(expected).mean())


def literal_lovasz(errors: list[float], truth: list[bool]) -> float:
    """Sum over the sorted errors of m_i (loss of the first i as mistakes - loss of the first i - 1)."""

    def jaccard_loss(mistakes: set[int]) -> float:
        object_ = {i for i, inside in enumerate(truth) if inside}
        return len(mistakes) / len(object_ | mistakes)

    order, total = sorted(range(len(errors)), key=lambda i: -errors[i]), 0.0
    for i, index in enumerate(order):
        total += errors[index] * (jaccard_loss(set(order[: i + 1])) - jaccard_loss(set(order[:i])))
    return total


def test_lovasz_is_its_definition():
    logits, target = drawn(size=(4, 5))
    target[target == 1] = 255
    probabilities, valid, losses = logits.detach().softmax(1), target != 255, []
    for label in (0, 2, 3):
        truth = (target == label)[valid].tolist()
        errors = [abs(t - p) for t, p in zip(truth, probabilities[:, label][valid].tolist(), strict=True)]
        losses.append(literal_lovasz(errors, truth))
    assert lovasz_softmax(logits, target).item() == pytest.approx(sum(losses) / 3, rel=1e-9)


def test_lovasz_has_the_gradient_of_its_value_and_is_one_minus_iou_on_hard_labels():
    logits, target = drawn(size=(3, 3))
    assert torch.autograd.gradcheck(lambda x: lovasz_softmax(x, target), logits)
    predicted = torch.randint(4, target.shape, generator=torch.Generator().manual_seed(3))
    hard = 200 * F.one_hot(predicted, 4).permute(0, 3, 1, 2).double()
    valid, losses = target != 255, []
    for label in target[valid].unique():
        found, true = (predicted == label) & valid, target == label
        losses.append(1 - (found & true).sum() / (found | true).sum())
    assert lovasz_softmax(hard, target).item() == pytest.approx(torch.stack(losses).mean().item(), abs=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_is_its_definition(gamma):
    logits, target = drawn()
    weights, total, divisor = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64), torch.zeros(()), 0.0
    for b, y, x in np.ndindex(*target.shape):
        if (label := int(target[b, y, x])) != 255:
            p = logits[b, :, y, x].softmax(0)[label]
            total, divisor = total - weights[label] * (1 - p) ** gamma * p.log(), divisor + weights[label]
    torch.testing.assert_close(focal_loss(logits, target, gamma, weights), total / divisor)


def test_focal_has_finite_slopes_where_the_prediction_is_certain():
    logits = torch.tensor([300.0, 0.0]).view(1, 2, 1, 1).requires_grad_()
    focal_loss(logits, torch.zeros(1, 1, 1, dtype=torch.long), gamma=0.5).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_segmentation_loss_adds_its_parts():
    (out, target), (aux, _) = drawn(), drawn(seed=1)
    weights = [0.5, 1.0, 2.0, 3.0]
    settings = {"threshold": 0.3, "min_kept": 10, "rule": "gald", "class_weights": weights}
    loss = SegmentationLoss(**settings, auxiliary_weight=0.25, terms={"dice": 0.5, "lovasz": 2.0, "focal": 3.0})
    found = loss({"out": out, "aux": aux}, target)
    expected = {
        "main": ohem_cross_entropy(out, target, 0.3, 10 * len(out), "gald", torch.tensor(weights)),
        "aux": cross_entropy(aux, target, torch.tensor(weights)),
        "dice": dice_loss(out, target),
        "lovasz": lovasz_softmax(out, target),
        "focal": focal_loss(out, target, class_weights=torch.tensor(weights)),
    }
    parts = [1, 0.25, 0.5, 2.0, 3.0]
    expected["loss"] = torch.stack([w * v for w, v in zip(parts, expected.values(), strict=True)]).sum()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=name)


def test_segmentation_loss_without_ohem_or_auxiliary():
    out, target = drawn()
    found = SegmentationLoss(ohem=False)({"out": out}, target)
    assert found.keys() == {"loss", "main"}
    torch.testing.assert_close(found["loss"], F.cross_entropy(out, target, ignore_index=255))
    over_all = SegmentationLoss(ohem=False, average="all")({"out": out}, target)["loss"]
    torch.testing.assert_close(over_all, found["loss"] * (target != 255).sum() / target.numel())


def test_class_weights_follow_the_module_but_stay_out_of_checkpoints():
    loss = SegmentationLoss(class_weights=[1.0, 2.0]).to(torch.float64)
    assert loss.class_weights is not None
    assert loss.class_weights.dtype == torch.float64
    assert not loss.state_dict()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, t: cross_entropy(x, t.clamp_max(4)), "label 4"),
        (lambda x, t: cross_entropy(x, t - 1, ignore_index=254), "label -1"),
        (lambda x, t: cross_entropy(x, t[:, 1:]), "resize"),
        (lambda x, t: cross_entropy(x[0], t), "logits must be"),
        (lambda x, t: ohem_cross_entropy(x, t, min_kept=-1), "min_kept is -1"),
        (lambda x, t: ohem_cross_entropy(x, t, threshold=None), "threshold=None needs"),
        (lambda x, t: focal_loss(x, t, gamma=-1), "gamma is -1"),
        (lambda x, t: SegmentationLoss(terms={"dize": 1.0}), "unknown loss term 'dize': did you mean 'dice'"),
        (lambda x, t: SegmentationLoss(rule=MISSPELT), "unknown rule of OHEM 'anm': did you mean 'ann'"),
        (lambda x, t: cross_entropy(x, t, torch.ones(3)), "class_weights"),
    ],
)
def test_wrong_input_is_said_in_one_line(call, message):
    logits, target = drawn()
    with pytest.raises(ValueError, match=message) as error:
        call(logits, target)
    assert "\n" not in str(error.value)


def test_a_very_wrong_pixel_keeps_its_true_loss():
    logits = torch.tensor([0.0, 400.0]).view(1, 2, 1, 1)
    target = torch.zeros(1, 1, 1, dtype=torch.long)
    assert ohem_cross_entropy(logits, target).item() == pytest.approx(400.0)
    assert focal_loss(logits, target).item() == pytest.approx(400.0)


# --- Further outputs of a head ----------------------------------------------------------------------------------


def test_presence_is_a_binary_cross_entropy_of_the_classes_that_an_image_holds():
    logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    target = torch.full((3, 5, 6), 255)
    target[0, 0, :2] = torch.tensor([1, 3])
    target[1] = 0  # the third image has no labelled pixel
    held = torch.tensor([[0, 1, 0, 1], [1, 0, 0, 0]], dtype=torch.float64)
    p = logits[:2].sigmoid()
    literal = -(held * p.log() + (1 - held) * (1 - p).log()).mean()
    torch.testing.assert_close(presence_loss(logits, target), literal)
    (gradient,) = torch.autograd.grad(presence_loss(logits, target), logits)
    assert not gradient[2].any()
    assert not presence_loss(logits, torch.full_like(target, 255)).any()
    with pytest.raises(ValueError, match="target holds label 7"):
        presence_loss(logits, torch.full_like(target, 7))


def test_further_outputs_have_their_weights():
    maps = {name: torch.randn(2, 4, 6, 7) for name in ("out", "coarse")}
    outputs = {**maps, "presence": torch.randn(2, 4)}
    target = torch.randint(4, (2, 6, 7))
    target[:, 0] = 255
    loss = SegmentationLoss(min_kept=20, further={"coarse": 0.4, "presence": 0.2})
    found = loss(outputs, target)
    mined = [ohem_cross_entropy(scores, target, min_kept=40) for scores in maps.values()]
    torch.testing.assert_close(found["coarse"], mined[1])
    torch.testing.assert_close(
        found["loss"], mined[0] + 0.4 * mined[1] + 0.2 * presence_loss(outputs["presence"], target)
    )
    assert "coarse" not in loss({"out": maps["out"]}, target)  # an evaluated model has none


@pytest.mark.parametrize("rule", ["ann", "ann_official", "gald", "mmseg", "top_k"])
def test_parts_of_a_batch_keep_as_many_pixels_as_the_whole(rule):
    """As one device with a batch of eight, and eight devices with one image each."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(8, 4, 30, 30, generator=generator)
    target = scores.argmax(1)  # every pixel is easy
    loss = SegmentationLoss(threshold=0.01, min_kept=152, rule=rule)  # 100,000 of 769 x 769: 16.9 %

    def share(parts: int) -> float:
        kept = 0
        for images, labels in zip(scores.chunk(parts), target.chunk(parts), strict=True):
            seen = images.clone().requires_grad_()
            loss({"out": seen}, labels)["loss"].backward()
            assert seen.grad is not None
            kept += int((seen.grad.abs().sum(1) > 0).sum())
        return kept / target.numel()

    assert share(1) == pytest.approx(0.169, abs=0.001)
    for parts in (2, 8):
        assert share(parts) == pytest.approx(share(1), abs=0.001)
