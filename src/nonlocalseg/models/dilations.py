"""Where a ResNet's, or a MobileNet's, blocks are dilated and strided, where implementations differ from timm."""

from __future__ import annotations

from torch import nn

from nonlocalseg.models.config import NetworkOptions

Rates = tuple[int, ...]


def arrange_blocks(body: nn.Module, name: str, options: NetworkOptions) -> None:
    """Set dilations, strides and pools as `options` say. Raises ValueError where the network `name` has no such blocks."""
    if options.multi_grid is not None or options.dilations is not None or options.dilated_blocks != "after_first":
        _set_dilations(body, name, options)
    if not options.dilate_second:
        _undilate_second(body, name)
    if options.stride_first:
        _stride_first(body, name)
    if not options.average_dilated:
        _drop_dilated_pools(body)
    if options.max_pool_ceil:
        pools = [m for m in body.modules() if isinstance(m, nn.MaxPool2d)]
        if not pools:
            raise ValueError(f"max_pool_ceil: {name} has no max pool")
        pools[0].ceil_mode = True
    _pad_plainly(body)


def _set_dilations(body: nn.Module, name: str, options: NetworkOptions) -> None:
    """The blocks of stages 4 and 5 by `dilations` and `dilated_blocks`; in the last stage the multi-grid decides."""
    asked = (option for option in ("multi_grid", "dilations") if getattr(options, option) is not None)
    stages = _stages(body, name, next(asked, "dilated_blocks"))
    for place, blocks in enumerate(stages):
        usual = max(_dilation(block) for block in blocks) if options.dilations is None else options.dilations[place]
        if options.multi_grid is not None and place == len(stages) - 1:
            rates = _grid(options.multi_grid, usual if options.multi_grid_multiplies else 1, len(blocks), name)
        elif options.dilated_blocks == "first":
            rates = (usual, *(1 for _ in blocks[1:]))
        elif options.dilated_blocks == "all":
            rates = tuple(usual for _ in blocks)
        elif options.dilations is not None:
            rates = (max(1, usual // 2), *(usual for _ in blocks[1:]))
        else:
            rates = tuple(_dilation(block) for block in blocks)
        for block, rate in zip(blocks, rates, strict=True):
            for conv in (m for m in block.modules() if isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1)):
                _dilate(conv, rate)


def _grid(grid: Rates, base: int, blocks: int, name: str) -> Rates:
    if len(grid) != blocks:
        raise ValueError(f"multi_grid: stage 5 of {name} has {blocks} blocks, so give {blocks} rates")
    return tuple(base * factor for factor in grid)


def _undilate_second(body: nn.Module, name: str) -> None:
    """The second convolution of every two-convolution block undilated, as mmsegmentation's ResNet-18 and -34 have it."""
    for blocks in _stages(body, name, "dilate_second"):
        for block in blocks:
            if hasattr(block, "conv3") or not hasattr(block, "conv2"):
                raise ValueError(f"dilate_second: {name} has no two-convolution blocks; it is for ResNet-18 and -34")
            _dilate(_spatial(block), 1)


def _stride_first(body: nn.Module, name: str) -> None:
    found = [block for block in body.modules() if hasattr(block, "conv3") and hasattr(block, "conv2")]
    if not found:
        raise ValueError(f"stride_first: {name} has no bottleneck blocks; it is for ResNet-50 and deeper")
    for block in found:
        first, second = block.get_submodule("conv1"), block.get_submodule("conv2")
        assert isinstance(first, nn.Conv2d)
        assert isinstance(second, nn.Conv2d)
        first.stride, second.stride = second.stride, (1, 1)


def _drop_dilated_pools(body: nn.Module) -> None:
    """In the shortcuts of a ResNet-D, the averages that keep the size."""
    for name, module in list(body.named_modules()):
        if name.endswith("downsample.0") and isinstance(module, nn.AvgPool2d) and module.stride in (1, (1, 1)):
            parent = body.get_submodule(name.rpartition(".")[0])
            assert isinstance(parent, nn.Sequential)
            parent[0] = nn.Identity()


def _pad_plainly(body: nn.Module) -> None:
    """timm computes what its averages that keep the size pad from that size, in floats, which an exported graph with
    free sizes cannot hold; at stride 1 and kernel 2 it is always one row and one column."""
    from timm.layers.pool2d_same import AvgPool2dSame

    for name, pool in list(body.named_modules()):
        if (
            isinstance(pool, nn.AvgPool2d)
            and type(pool) is AvgPool2dSame
            and (pool.kernel_size, pool.stride) == ((2, 2), (1, 1))
        ):
            plain = nn.AvgPool2d(2, 1, ceil_mode=pool.ceil_mode, count_include_pad=pool.count_include_pad)
            parent, _, child = name.rpartition(".")
            setattr(body.get_submodule(parent), child, nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), plain))


def _stages(body: nn.Module, name: str, option: str) -> list[list[nn.Module]]:
    """The blocks of a ResNet's stages 4 and 5, or of a MobileNet's from the first dilated one on."""
    layers = [getattr(body, layer, None) for layer in ("layer3", "layer4")]
    if all(isinstance(layer, nn.Module) for layer in layers):
        found = [list(layer.children()) for layer in layers if isinstance(layer, nn.Module)]
        if all(hasattr(block, "conv2") for blocks in found for block in blocks):
            return found
    stages = getattr(body, "blocks", None)
    if option == "dilated_blocks" and isinstance(stages, nn.Module):
        found = [list(stage.children()) for stage in stages.children()]
        if all(hasattr(block, "conv_dw") for blocks in found for block in blocks):
            return [blocks for blocks in found if max(_dilation(block) for block in blocks) > 1]
    raise ValueError(f"{option}: {name} is no ResNet; it can be set for ResNets only")


def _dilation(block: nn.Module) -> int:
    return _spatial(block).dilation[0]


def _spatial(block: nn.Module) -> nn.Conv2d:
    conv = getattr(block, "conv_dw", None) or getattr(block, "conv2", None)
    assert isinstance(conv, nn.Conv2d)  # timm's ResNets and MobileNets; `_stages` has looked
    return conv


def _dilate(conv: nn.Conv2d, rate: int) -> None:
    conv.dilation = (rate, rate)
    conv.padding = (rate * (conv.kernel_size[0] // 2), rate * (conv.kernel_size[1] // 2))
