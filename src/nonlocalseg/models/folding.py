"""Exact inference-time folding: the same function with less arithmetic, for evaluation only.

Batch norm goes into its convolution, or becomes one factor and one shift where none precedes it; W_o goes into the output
convolution of its block, and AFNB's output convolution, which has no activation, into the 3x3 convolution behind it.
The auxiliary head is dropped.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from nonlocalseg.blocks.basic import Affine, ConvNormAct
from nonlocalseg.blocks.folding import fold_norm, fold_out, fused
from nonlocalseg.blocks.non_local import AttendingBlock
from nonlocalseg.models.backbone import Backbone
from nonlocalseg.models.segmenter import Segmenter
from nonlocalseg.values import changed


def fold(model: Segmenter) -> Segmenter:
    """A new Segmenter that computes the same scores with less arithmetic; folding it again changes nothing.

    It cannot be trained, has no auxiliary head, and is saved and loaded like any other (its config says `folded`).
    Raises `ValueError` for a model in training mode.
    """
    if model.training:
        raise ValueError("fold() is for evaluation: call model.eval() first")
    folded = copy.deepcopy(model)
    fold_in_place(folded)
    return folded


@torch.no_grad()
def fold_in_place(model: Segmenter) -> None:
    """Turn `model`, in evaluation mode, into its folded form: structure and weights."""
    if model.folded:
        return
    model.auxiliary = None
    _fold_backbone(model.backbone)
    for module in list(model.head.modules()):
        if isinstance(module, ConvNormAct):
            fold_norm(module)
    for module in list(model.head.modules()):
        if isinstance(module, AttendingBlock):
            fold_out(module)
    model.head.fold()
    for name, module in _named(model.head):
        if isinstance(module, nn.BatchNorm2d):
            _replace(model.head, name, Affine.of(module))
    model.requires_grad_(False)
    model.folded = True
    if model.config is not None:
        model.config = changed(model.config, {"folded": True})


def _fold_backbone(backbone: Backbone) -> None:
    """Fold every batch norm that alone consumes a convolution's result, and check the features on one image."""
    body = backbone.body
    parameter = next(body.parameters())
    image = torch.rand(1, 3, *backbone.padded_size(64, 64), dtype=parameter.dtype, device=parameter.device)
    pairs, before = _pairs(body, image)
    modules = dict(_named(body))
    for conv_name, norm_name in pairs:
        conv, norm = modules[conv_name], modules[norm_name]
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        _replace(body, conv_name, fused(conv, norm))
        _replace(body, norm_name, getattr(norm, "act", nn.Identity()))  # timm's norms may hold the activation
    for old, new in zip(before, body(image), strict=True):
        if not torch.allclose(old, new, rtol=1e-2, atol=1e-3 * float(old.abs().max()) + 1e-6):
            raise ValueError("this backbone's batch norm cannot be folded: it does more than follow its convolution")


def _named(root: Any) -> list[tuple[str, nn.Module]]:
    """All modules by name; torch's own annotation does not say what they are."""
    return list(root.named_modules())


def _pairs(body: nn.Module, image: Tensor) -> tuple[list[tuple[str, str]], list[Tensor]]:
    """(convolution, norm) names found by following one image, and the features."""
    made: dict[int, tuple[str, Tensor]] = {}  # the tensors are kept, so that ids stay unique
    readers: dict[int, list[tuple[str, nn.Module]]] = {}
    handles: list[RemovableHandle] = []
    for name, module in _named(body):
        if len(list(module.children())) and not isinstance(module, nn.BatchNorm2d):
            continue

        def read(module: nn.Module, inputs: Any, name: str = name) -> None:
            for x in inputs:
                if isinstance(x, Tensor):
                    readers.setdefault(id(x), []).append((name, module))

        def write(module: nn.Module, inputs: Any, output: Any, name: str = name) -> None:
            if isinstance(module, nn.Conv2d) and isinstance(output, Tensor):
                made[id(output)] = (name, output)
                readers.pop(id(output), None)  # those of an earlier tensor at this place in memory

        watched: Any = module  # torch does not say what hooks take
        handles += [watched.register_forward_pre_hook(read), watched.register_forward_hook(write)]
    try:
        features = body(image)
    finally:
        for handle in handles:
            handle.remove()
    pairs: list[tuple[str, str]] = []
    returned = {id(x) for x in features}  # GhostNet's first stage is a convolution's result before its norm
    for key, (conv_name, _) in made.items():
        consumers = readers.get(key, [])
        if key not in returned and len(consumers) == 1 and isinstance(consumers[0][1], nn.BatchNorm2d):
            pairs.append((conv_name, consumers[0][0]))
    return pairs, features


def _replace(root: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(root.get_submodule(parent), child, module)
