"""Which pixels a network's scores depend on, followed through its layers; and why a network cannot be seen in tiles."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nonlocalseg.blocks.tiles import Statistics, Tile, resampled
from nonlocalseg.heads.base import SILENT
from nonlocalseg.models.segmenter import Segmenter

M = TypeVar("M", bound=nn.Module)
S = TypeVar("S", bound=Statistics)

SIDE = 1024  # pixels to a side of the image that is followed; nothing is computed
ODD = (1013, 1019)  # of another, on which what is padded by the image's size is padded otherwise
# fmt: off
_POINTWISE = frozenset((
    "relu", "relu_", "relu6", "hardtanh", "hardtanh_", "silu", "silu_", "gelu", "hardswish", "hardswish_",
    "hardsigmoid", "hardsigmoid_", "sigmoid", "sigmoid_", "tanh", "tanh_", "mish", "mish_", "leaky_relu",
    "leaky_relu_", "elu", "elu_", "prelu", "softplus", "add", "add_", "__add__", "__iadd__", "__radd__", "sub",
    "sub_", "__sub__", "__rsub__", "__isub__", "mul", "mul_", "__mul__", "__rmul__", "__imul__", "div", "div_",
    "__truediv__", "__itruediv__", "neg", "__neg__", "clamp", "clamp_", "contiguous", "clone", "to", "float",
    "double", "half", "type_as", "dropout", "dropout2d", "detach",
))
# fmt: on
"""Functions that take each position alone."""
_CHANNELWISE = frozenset({"cat", "concat", "chunk", "split"})
"""Functions that take each position alone where they go along its channels."""
_WHOLE = {
    "adaptive_avg_pool2d": "pools over all positions (squeeze-and-excitation does so)",
    "adaptive_max_pool2d": "pools over all positions",
    "mean": "takes the mean over all positions (squeeze-and-excitation does so)",
    "amax": "takes the maximum over all positions",
    "var_mean": "normalises over all positions",
    "group_norm": "normalises over all positions",
    "instance_norm": "normalises over all positions",
    "scaled_dot_product_attention": "attends to all positions",
    "softmax": "takes a softmax over positions",
    "interpolate": "resizes by the size of its image",
}


@dataclass(frozen=True)
class Reach:
    """On which pixels the cell i of a map depends: i stride - before to i stride + after. axes: those of its positions."""

    stride: int
    before: int
    after: int
    axes: tuple[int, int] = (2, 3)

    def through(self, kernel: int, stride: int, padding: int, dilation: int) -> Reach:
        """Of a map made from this one by windows of `kernel` cells."""
        before, after = padding * self.stride, (dilation * (kernel - 1) - padding) * self.stride
        return replace(self, stride=self.stride * stride, before=self.before + before, after=self.after + after)

    def wider(self, cells: int) -> Reach:
        return replace(self, before=self.before + cells * self.stride, after=self.after + cells * self.stride)

    @property
    def border(self) -> int:
        """Pixels around a tile's own without which its cells are not those of the whole map."""
        return max(self.before, self.after - self.stride + 1, 0)


@dataclass(frozen=True)
class ReceptiveField:
    """Pixels of border that tiles need: for what each round of statistics gathers, for the scores, and for the head alone,
    from the backbone's maps on. multiple: of which tiles must begin. strides: of the backbone's stages that the head
    reads, and of the scores' own grid."""

    rounds: tuple[int, ...]
    scores: int
    head: int
    multiple: int
    stage_strides: Mapping[int, int]
    stride: int


def receptive_field(model: Segmenter) -> ReceptiveField:
    """How far the scores of a network see, but for what its blocks gather from all positions and add up.

    Followed from layer to layer without computing anything: kernels, strides, dilations, paddings; of paths side by side
    the widest. Raises ValueError with the reason for a network that cannot be seen in tiles: a backbone with layers that
    see all positions, or a head whose blocks relate all positions in a way that does not add up.
    """
    network = on_meta(model)
    follower, features = _followed(network, (SIDE, SIDE))
    for here, there in zip(follower.pads, _followed(network, ODD)[0].pads, strict=True):
        if here != there:
            raise ValueError(f"{here[0]} pads by the size of its image")
    alone = _Follower(strict=False)
    after_backbone = {stage: follower.reach_of(features[stage]) for stage in sorted({*network.head.stages})}
    found: dict[str, Reach] = {}
    multiple, rounds = 1, ()
    for follower, starts in (
        (_Follower(strict=False), after_backbone),
        (alone, {stage: Reach(reach.stride, 0, 0) for stage, reach in after_backbone.items()}),
    ):
        tiles: dict[int, Tile] = {}
        for stage in after_backbone:
            x = features[stage]
            follower.begin(x, starts[stage])
            size = (x.shape[2], x.shape[3])
            every = ((0, size[0]), (0, size[1]))
            tiles[stage] = Tile(size, (0, 0), size, every, every, starts[stage].stride, follower)
        with torch.no_grad(), follower.within(network.head, "head"), follower:
            scores = network.head(features, SILENT, tiles)
        found["head" if follower is alone else "scores"] = follower.reach_of(scores).wider(3)
        if follower is not alone:
            rounds = tuple(reach.border for reach in follower.rounds)
            multiple = math.lcm(follower.multiple, network.backbone.multiple)
    multiple = math.lcm(multiple, *(reach.stride for reach in after_backbone.values()))
    strides = {stage: reach.stride for stage, reach in after_backbone.items()}
    stride = found["scores"].stride
    return ReceptiveField(rounds, found["scores"].border, found["head"].border, multiple, strides, stride)


def _followed(network: Segmenter, size: tuple[int, int]) -> tuple[_Follower, dict[int, Tensor]]:
    """Its backbone on an image of that size."""
    follower = _Follower()
    with torch.no_grad(), follower.within(network.backbone, "backbone"):
        image = network.backbone.pad(torch.empty(1, 3, *size, device="meta", dtype=network.mean.dtype))
        follower.begin(image)
        with follower:
            return follower, network.backbone(image)


def on_meta(model: M) -> M:
    """A copy in evaluation mode that has shapes and no values: it computes nothing."""
    shapes = {id(held): held.detach().to("meta") for held in (*model.parameters(), *model.buffers())}
    parameters = {id(held) for held in model.parameters()}
    memo = {key: nn.Parameter(held, False) if key in parameters else held for key, held in shapes.items()}
    return copy.deepcopy(model, memo).eval()


class _Follower(TorchFunctionMode):
    """Follows maps from function to function, and says how far each sees. strict: raise for a function that is not known
    to keep positions apart; else what is not known keeps them apart. As a ledger it takes statistics for constants."""

    def __init__(self, strict: bool = True) -> None:
        super().__init__()
        self.strict = strict
        self.rounds: list[Reach] = []
        self.multiple = 1
        self.pads: list[tuple[str, tuple[int, ...]]] = []
        self._known: dict[int, tuple[Tensor, Reach]] = {}  # the tensors are kept, so that ids stay unique
        self._place: list[str] = []
        self._gathered: list[Reach] | None = None

    def begin(self, x: Tensor, reach: Reach | None = None) -> None:
        self._note(x, reach or Reach(1, 0, 0))

    def reach_of(self, x: Tensor) -> Reach:
        return self._known[id(x)][1]

    def total(self, gather: Callable[[], S], empty: bool = False) -> S:
        self._gathered = []
        found = gather()
        seen, self._gathered = self._gathered, None
        self.rounds.append(_widest(seen))
        for part in found.parts:
            self._known.pop(id(part), None)
        return found

    @contextmanager
    def within(self, network: nn.Module, title: str) -> Iterator[None]:
        """Know the parts of the network by name, and how far those see that say it themselves (`reach`, in cells)."""
        handles = []
        for name, module in network.named_modules():
            called = f"{title}: {name or 'it'} ({type(module).__name__})"
            handles.append(module.register_forward_pre_hook(lambda *_, called=called: self._place.append(called)))
            handles.append(module.register_forward_hook(self._left))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _left(self, module: nn.Module, given: tuple[object, ...], result: object) -> None:
        self._place.pop()
        cells = getattr(module, "reach", 0)
        if isinstance(cells, int) and cells and isinstance(result, Tensor):
            self._note(
                result, _widest([self.reach_of(x) for x in _tensors(given) if id(x) in self._known]).wider(cells)
            )

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        result = func(*args, **given)
        name = getattr(func, "__name__", "")
        inputs = [x for x in _tensors((*args, *given.values())) if id(x) in self._known]
        outputs = [x for x in _tensors((result,)) if all(x is not one for one in inputs) or name.endswith("_")]
        if inputs and outputs and name != "__get__":
            reach = self._reach(func, name, inputs, args, given)
            for x in outputs:
                self._note(x, reach)
        return result

    def _note(self, x: Tensor, reach: Reach) -> None:
        self._known[id(x)] = (x, reach)
        self.multiple = math.lcm(self.multiple, reach.stride)
        if self._gathered is not None:
            self._gathered.append(reach)

    def _reach(
        self, func: Callable[..., Any], name: str, inputs: list[Tensor], args: Sequence[Any], given: Mapping[str, Any]
    ) -> Reach:
        first = _widest([self.reach_of(x) for x in inputs])
        if name in ("conv2d", "max_pool2d", "avg_pool2d"):
            return first.through(*_window(name, args, given))
        if func is resampled:
            x, source, target = args[:3]
            start = replace(self.reach_of(x), stride=source.stride).wider(3)
            return replace(start, stride=target.stride)
        if not self.strict:
            return first.wider(max(args[1])) if name == "pad" else first
        return self._strict(name, first, args, given)

    def _strict(self, name: str, first: Reach, args: Sequence[Any], given: Mapping[str, Any]) -> Reach:
        if name in _POINTWISE:
            return first
        if name == "batch_norm" and not given.get("training", args[5] if len(args) > 5 else False):
            return first
        if name in _CHANNELWISE:
            axis = given.get("dim", args[-1] if len(args) > 1 and isinstance(args[-1], int) else 0)
            if axis % 4 not in first.axes:
                return first
        if name == "pad":
            left, _, top, *_ = sides = tuple(args[1])
            self.pads.append((self._place[-1], sides))
            before, after = first.before + max(left, top) * first.stride, first.after - min(left, top) * first.stride
            return replace(first, before=before, after=after)
        if name == "linear" and 3 not in first.axes:
            return first
        if name == "layer_norm" and len(given.get("normalized_shape", args[1])) == 1 and 3 not in first.axes:
            return first
        if name == "permute":
            order = args[1] if isinstance(args[1], (tuple, list)) else args[1:]
            return replace(first, axes=(order.index(first.axes[0]), order.index(first.axes[1])))
        if name == "mean":
            axes = given.get("dim", args[1] if len(args) > 1 else (0, 1, 2, 3))
            if not {axis % 4 for axis in ((axes,) if isinstance(axes, int) else axes)} & set(first.axes):
                return first
        reason = _WHOLE.get(name, f"calls {name}, which may relate all positions")
        raise ValueError(f"{self._place[-1]} {reason}")


def _widest(reaches: Sequence[Reach]) -> Reach:
    """Of maps that are joined: as coarse as the coarsest, as far as the farthest."""
    if not reaches:
        return Reach(1, 0, 0)
    return Reach(
        max(one.stride for one in reaches),
        max(one.before for one in reaches),
        max(one.after for one in reaches),
        reaches[0].axes,
    )


def _window(name: str, args: Sequence[Any], given: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """Kernel, stride, padding and dilation of a convolution or pooling."""
    if name == "conv2d":
        names, kernel = ("input", "weight", "bias", "stride", "padding", "dilation"), 0
    else:
        names, kernel = ("input", "kernel_size", "stride", "padding", "dilation"), None
    found = {**dict(zip(names, args, strict=False)), **given}
    kernel = found["weight"].shape[2:] if kernel is not None else found["kernel_size"]
    size = _largest(kernel)
    stride = found.get("stride", 1 if name == "conv2d" else size)
    dilation = _largest(found.get("dilation", 1)) if name != "avg_pool2d" else 1
    padding = found.get("padding", 0)
    if isinstance(padding, str):
        padding = dilation * (size - 1) // 2 if padding == "same" else 0
    return size, _largest(stride if stride is not None and stride != [] else size), _largest(padding), dilation


def _largest(given: Any) -> int:
    return max(given) if isinstance(given, (tuple, list, torch.Size)) else int(given)


def _tensors(given: Sequence[Any]) -> Iterator[Tensor]:
    for one in given:
        if isinstance(one, Tensor):
            yield one
        elif isinstance(one, (tuple, list)):
            yield from _tensors(one)
