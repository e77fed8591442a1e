"""Losses on logits: cross-entropy, OHEM (Shrivastava et al., 2016) as ANN and GALD train with it, Dice, Lovász-softmax
and focal terms, and their sum with the auxiliary head's.

All take logits [B, K, H, W] of any floating type (half precision is computed in float32), target [B, H, W] of class
indices where `ignore_index` marks pixels that take no part. When no pixel takes part the loss is 0 with a zero gradient.
A label outside 0..K-1 and a size mismatch raise ValueError. Of several processes, each with its part of the batch, each
must ask and gets the loss of the whole: sums, denominators and kept pixels are all of theirs; gradients are to be averaged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nonlocalseg.choices import pick
from nonlocalseg.labels import IGNORE
from nonlocalseg.mining import below, largest
from nonlocalseg.runtime import stack_over_processes, sum_over_processes

OhemRule = Literal["ann", "ann_official", "gald", "mmseg", "top_k"]
Average = Literal["kept", "valid", "all", "kept_count"]


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    class_weights: Tensor | None = None,
    ignore_index: int = IGNORE,
    average: Literal["valid", "all"] = "valid",
) -> Tensor:
    """Cross-entropy, weighted by the class of each pixel, divided by the sum of the weights.

    average: the pixels that sum runs over, "valid" or "all", which counts ignored pixels too (mmsegmentation's
    default, `avg_non_ignore=False`); with class weights ignored pixels weigh nothing in either.
    """
    losses, valid = _pixel_losses(logits, target, ignore_index)
    return _average(losses, valid, valid, _pixel_weights(logits, target, valid, class_weights), average)


def ohem_cross_entropy(
    logits: Tensor,
    target: Tensor,
    threshold: float | None = 0.7,
    min_kept: int = 100_000,
    rule: OhemRule = "ann",
    class_weights: Tensor | None = None,
    ignore_index: int = IGNORE,
    average: Average | None = None,
) -> Tensor:
    """Cross-entropy of the hard pixels: those whose true class has a low probability p.

    With s the sorted p of the n valid pixels in the batch (zero-based) and k = min_kept, a valid pixel is kept when

    * "ann": p < max(threshold, s[min(k, n - 1)]), every one when k >= n; divided by the kept weights;
    * "ann_official": the same, but k >= n drops the most confident pixels and class weights are divided by the
      *number* of kept pixels (FSOhemCELoss in MendelXu/ANN);
    * "gald": p <= max(threshold, s[k - 1]), every one when k > n (OhemCrossEntropy2dTensor in lxtGH/GALD-DGCNet);
    * "mmseg": p < max(threshold, s[min(k B, n - 1)]), the sum divided by *all* pixels, or by the sum of the weights of
      all; threshold=None keeps the k B largest losses (OHEMPixelSampler of mmsegmentation 1.2);
    * "top_k": the k largest losses, whatever the threshold (GALD's "top-K ranked pixels").

    average: what the sum is divided by, where it is not to be the rule's own: the weights of the "kept", the "valid" or
    "all" pixels, or the number of kept ones, "kept_count". rule="mmseg" with "valid" is its `avg_non_ignore=True`.
    """
    _check_mining(threshold, min_kept, rule)
    losses, valid = _pixel_losses(logits, target, ignore_index)
    weights = _pixel_weights(logits, target, valid, class_weights)
    rank = min_kept * len(logits) if rule == "mmseg" else min_kept
    with torch.no_grad():
        if rule == "top_k" or threshold is None:
            kept = largest(torch.where(valid, losses * weights, -1.0), valid, rank)
        else:
            kept = below(torch.where(valid, torch.exp(-losses), 2.0), valid, threshold, rank, rule)
    by_rule = {"mmseg": "all", "ann_official": "kept_count"}
    return _average(losses, valid, kept, weights, average or by_rule.get(rule, "kept"))


def dice_loss(logits: Tensor, target: Tensor, ignore_index: int = IGNORE) -> Tensor:
    """1 - 2 sum(p y) / (sum(p) + sum(y)), sums over the batch's valid pixels, mean over the classes y holds.

    Soft Dice after Milletari et al. (V-Net, 2016), denominators not squared. A class that is absent from the
    target is left out: its overlap is 0 whatever is predicted.
    """
    probabilities, labels, valid = _flat_probabilities(logits, target, ignore_index)  # [K, N], [N], [N]
    truth = torch.zeros_like(probabilities).scatter_(0, labels[None], 1.0) * valid
    overlap = sum_over_processes((probabilities * truth).sum(1))  # [K]
    area = sum_over_processes((probabilities * valid).sum(1) + truth.sum(1))
    present = sum_over_processes(truth.sum(1)) > 0
    losses = torch.where(present, 1 - 2 * overlap / torch.where(present, area, 1.0), 0.0)
    return losses.sum() / present.sum().clamp_min(1)


def lovasz_softmax(logits: Tensor, target: Tensor, ignore_index: int = IGNORE) -> Tensor:
    """The Lovász extension of 1 - IoU (Berman et al., CVPR 2018, Alg. 1), mean over the classes in the target."""
    probabilities, labels, valid = _flat_probabilities(logits, target, ignore_index)
    counts = sum_over_processes(torch.bincount(labels[valid], minlength=len(probabilities)))
    classes, losses = probabilities.unbind(), []
    for index in counts.nonzero().flatten().tolist():
        own = (labels == index) & valid
        # an ignored pixel has no error, so it is sorted behind every pixel that changes the loss
        errors = torch.where(valid, (own.to(classes[index]) - classes[index]).abs(), 0.0)
        errors, truth = stack_over_processes(errors).flatten(), stack_over_processes(own.int()).flatten() > 0  # [P N]
        with torch.no_grad():  # the extension is linear for a given order of the errors
            order = errors.argsort(descending=True)
            slopes = torch.empty_like(errors)
            slopes[order] = _lovasz_gradient(truth[order]).to(errors)
        losses.append((errors * slopes).sum())
    return torch.stack(losses).mean() if losses else probabilities[:, valid].sum()


def focal_loss(
    logits: Tensor, target: Tensor, gamma: float = 2.0, class_weights: Tensor | None = None, ignore_index: int = IGNORE
) -> Tensor:
    """(1 - p)^gamma times cross-entropy over the valid pixels (Lin et al., ICCV 2017, Eq. 5).

    Class weights are the paper's alpha; the sum is divided by the sum of the weights.
    """
    if gamma < 0:
        raise ValueError(f"gamma is {gamma}, but the focal loss needs 0 (plain cross-entropy) or more")
    losses, valid = _pixel_losses(logits, target, ignore_index)
    # 1 - p without cancellation; the floor keeps the slope finite at p = 1 for gamma < 1
    modulation = (-torch.expm1(-losses)).clamp_min(torch.finfo(losses.dtype).tiny ** 0.5) ** gamma
    return _average(modulation * losses, valid, valid, _pixel_weights(logits, target, valid, class_weights), "valid")


def presence_loss(logits: Tensor, target: Tensor, ignore_index: int = IGNORE) -> Tensor:
    """Binary cross-entropy of which classes each image holds: EncNet's semantic encoding loss (CVPR 2018, section 3.1).

    logits [B, K], target [B, H, W]; the mean over images and classes. Images without a labelled pixel take no part.
    """
    labels, valid = _checked(logits[:, :, None, None].expand(-1, -1, *target.shape[1:]), target, ignore_index)
    pairs = zip(labels, valid, strict=True)  # bincount: scatter_add has no deterministic CUDA kernel
    held = torch.stack([torch.bincount(label[known], minlength=logits.shape[1]) > 0 for label, known in pairs])
    single = _single_precision(logits)
    losses = F.binary_cross_entropy_with_logits(single, held.to(single), reduction="none")
    labelled = held.any(1, keepdim=True).expand_as(losses)
    total, count = torch.where(labelled, losses, 0.0).sum(), labelled.sum()
    return sum_over_processes(total) / sum_over_processes(count).clamp_min(1)


class SegmentationLoss(nn.Module):
    """main + auxiliary_weight * auxiliary + weighted extra terms: what a segmentation model is trained with.

    main is `ohem_cross_entropy` or, with ohem=False, `cross_entropy`; the auxiliary head always has plain cross-entropy,
    as in ANN and GALD. min_kept counts for each image of the batch, so a batch that is split into parts keeps as many
    pixels. terms maps "dice", "lovasz" or "focal" to the weight of that loss on the main output. average overrides what
    main and auxiliary are divided by: see the two functions. further maps outputs that a head adds to the weights of
    their losses: the main loss of scores [B, K, H, W], `presence_loss` of logits [B, K].
    """

    class_weights: Tensor | None

    def __init__(
        self,
        ohem: bool = True,
        threshold: float | None = 0.7,
        min_kept: int = 100_000,
        rule: OhemRule = "ann",
        auxiliary_weight: float = 0.4,
        class_weights: Tensor | Sequence[float] | None = None,
        terms: Mapping[str, float] | None = None,
        ignore_index: int = IGNORE,
        average: Literal["valid", "all"] | None = None,
        further: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        if ohem:
            _check_mining(threshold, min_kept, rule)
        self.ohem, self.threshold, self.min_kept = ohem, threshold, min_kept
        self.rule: OhemRule = rule
        self.average: Literal["valid", "all"] | None = average
        self.auxiliary_weight, self.ignore_index = auxiliary_weight, ignore_index
        self.terms, self.further = dict(terms or {}), dict(further or {})
        for name in self.terms:
            pick("loss term", name, ("dice", "lovasz", "focal"))
        weights = None if class_weights is None else torch.as_tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)  # configuration, not a learned state

    def forward(self, outputs: Mapping[str, Tensor], target: Tensor) -> dict[str, Tensor]:
        """outputs: "out" [B, K, H, W] and perhaps "aux" [B, K, h, w]; target [B, H, W] of class indices.

        Scores named "stage_..." come from heads that hand no gradient back; their cross-entropy is added.
        Returns scalars: "loss" (the weighted sum), "main", "aux" if there is one, and every extra term (unweighted).
        An auxiliary map of another size than the target is compared with the target resized to it by nearest neighbour.
        """
        weights, ignore, logits = self.class_weights, self.ignore_index, outputs["out"]
        main = self._main(logits, target)
        losses, total = {"main": main}, main
        if "aux" in outputs:
            aux, aux_target = outputs["aux"], target
            if aux.shape[-2:] != target.shape[-2:]:
                aux_target = F.interpolate(target[:, None].float(), size=aux.shape[-2:], mode="nearest")[:, 0].long()
            losses["aux"] = cross_entropy(aux, aux_target, weights, ignore, self.average or "valid")
            total = total + self.auxiliary_weight * losses["aux"]
        for name in sorted(name for name in outputs if name.startswith("stage_")):
            losses[name] = cross_entropy(outputs[name], target, weights, ignore, self.average or "valid")
            total = total + losses[name]
        for name in sorted(self.further.keys() & outputs.keys()):
            found = outputs[name]
            losses[name] = presence_loss(found, target, ignore) if found.ndim == 2 else self._main(found, target)
            total = total + self.further[name] * losses[name]
        for name, weight in self.terms.items():
            losses[name] = self._term(name, logits, target)
            total = total + weight * losses[name]
        return {"loss": total, **losses}

    def _main(self, logits: Tensor, target: Tensor) -> Tensor:
        weights, ignore = self.class_weights, self.ignore_index
        if not self.ohem:
            return cross_entropy(logits, target, weights, ignore, self.average or "valid")
        kept = self.min_kept * (1 if self.rule == "mmseg" else len(logits))  # that rule counts per image by itself
        return ohem_cross_entropy(logits, target, self.threshold, kept, self.rule, weights, ignore, self.average)

    def _term(self, name: str, logits: Tensor, target: Tensor) -> Tensor:
        if name == "dice":
            return dice_loss(logits, target, self.ignore_index)
        if name == "lovasz":
            return lovasz_softmax(logits, target, self.ignore_index)
        return focal_loss(logits, target, class_weights=self.class_weights, ignore_index=self.ignore_index)


def _check_mining(threshold: float | None, min_kept: int, rule: str) -> None:
    pick("rule of OHEM", rule, get_args(OhemRule))
    if min_kept < 0:
        raise ValueError(f"min_kept is {min_kept}, but a number of pixels is 0 or more")
    if threshold is None and rule not in ("mmseg", "top_k"):
        raise ValueError(f'threshold=None needs rule="mmseg" or rule="top_k", not rule="{rule}"')


def _single_precision(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def _checked(logits: Tensor, target: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Target [B, H, W] -> labels [B, H, W] int64 with 0 where ignored (255 indexes nothing), valid [B, H, W] bool."""
    if logits.ndim != 4 or target.shape != (len(logits), *logits.shape[2:]):
        raise ValueError(
            f"target is {tuple(target.shape)} for logits {tuple(logits.shape)}: logits must be [B, K, H, W] and target "
            "[B, H, W]; resize the logits to the label's size first"
        )
    valid = target != ignore_index
    labels = torch.where(valid, target.long(), 0)
    if labels.numel() and (int(labels.max()) >= logits.shape[1] or int(labels.min()) < 0):
        wrong = labels.max() if int(labels.max()) >= logits.shape[1] else labels.min()
        raise ValueError(
            f"target holds label {int(wrong)}, but the logits have classes 0 to {logits.shape[1] - 1}: "
            f"correct num_classes, or map that label to {ignore_index} (ignore)"
        )
    return labels, valid


def _pixel_losses(logits: Tensor, target: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """-> -log p of the true class [B, H, W], arbitrary but finite where ignored, and valid [B, H, W]."""
    labels, valid = _checked(logits, target, ignore_index)
    # gather: nll_loss over maps has no deterministic CUDA kernel
    return -F.log_softmax(_single_precision(logits), dim=1).gather(1, labels[:, None])[:, 0], valid


def _pixel_weights(logits: Tensor, target: Tensor, valid: Tensor, class_weights: Tensor | None) -> Tensor:
    """-> the weight of each pixel's class [B, H, W], 0 where ignored (1 without class weights)."""
    if class_weights is None:
        return torch.ones_like(target, dtype=_single_precision(logits).dtype)
    if class_weights.shape != logits.shape[1:2]:
        raise ValueError(
            f"class_weights is {tuple(class_weights.shape)}, but {logits.shape[1]} classes need one weight each"
        )
    weights = class_weights.to(logits.device, _single_precision(logits).dtype)
    return torch.where(valid, weights[torch.where(valid, target.long(), 0)], 0.0)


def _average(losses: Tensor, valid: Tensor, kept: Tensor, weights: Tensor, over: str) -> Tensor:
    """sum(weights * losses) over kept pixels, divided as `over` says; 0, still in the graph, where that is empty."""
    total = torch.where(kept, losses * weights, 0.0).sum()
    if over == "kept_count":
        divisor = kept.sum().to(total)
    elif over == "all":
        divisor = weights.sum()
    else:
        divisor = torch.where(kept if over == "kept" else valid, weights, 0.0).sum()
    total, divisor = sum_over_processes(torch.stack([total, divisor]))
    return total / torch.where(divisor > 0, divisor, 1.0)


def _flat_probabilities(logits: Tensor, target: Tensor, ignore_index: int) -> tuple[Tensor, Tensor, Tensor]:
    """-> probabilities [K, N], labels [N] (0 where ignored), valid [N], with N = B H W."""
    labels, valid = _checked(logits, target, ignore_index)
    probabilities = _single_precision(logits).softmax(1).movedim(1, 0).flatten(1)  # [B, K, H, W] -> [K, N]
    return probabilities, labels.flatten(), valid.flatten()


def _lovasz_gradient(truth: Tensor) -> Tensor:
    """Truth [N] bool, sorted by error -> the change of the Jaccard loss as each pixel joins the errors [N] float64."""
    total = truth.sum()
    intersection = total - truth.cumsum(0)  # int64: exact at any size
    union = total + (~truth).cumsum(0)
    return torch.diff(1 - intersection.double() / union, prepend=torch.zeros_like(total, dtype=torch.float64)[None])
