"""The verb that measures speed, memory and error: benchmark."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from nonlocalseg.cli.terminal import check_device, output, say

if TYPE_CHECKING:
    from nonlocalseg.timing.tables import Table

What = Literal["block", "operations", "head", "network", "local-attention", "train", "loader"]
# Which options each measurement reads, beside --repeat and --json.
_READ = {
    "block": {"size", "device"},
    "operations": {"size", "device"},
    "head": {"size", "device", "backbone"},
    "network": {"size", "device", "backbone", "model"},
    "local-attention": {"size", "device"},
    "train": {"size", "device", "backbone", "model", "batch_size"},
    "loader": {"size", "workers"},
}


def benchmark(
    what: What,
    *,
    size: tuple[int, int] | None = None,
    model: str | None = None,
    backbone: str | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    repeat: int = 5,
    device: str | None = None,
    json: str | None = None,
) -> None:
    """Measure time, multiply-adds, peak memory and error on this machine.

    block: NB and APNB, the printed equations against ours (ANN, Table 1). operations: where a block's time goes (ANN,
    Fig. 2). head: ANN's head, plain and folded. network: a whole model in every form it can run in (ANN, Table 2).
    local-attention: LDv2's core against its unfolded form, and what local distribution adds to a network (GALD, Table
    IV). train: one training step. loader: decoding and augmentation. Forms are timed in turn in one process, memory is
    measured, and the papers' own figures stand beside ours.

    Args:
        what: what to measure.
        size: height and width; of the feature map for block, operations, head and local-attention, of the image for
            network, of the crop for train and loader; one number for both; by default the papers' sizes.
        model: the model for network (default: ann) and train (default: ann and galdv2).
        backbone: the timm backbone for head, network and train (default: resnet50c).
        batch_size: images in a training step (default: 2).
        workers: processes that load images (default: 1).
        repeat: rounds; the median is printed.
        device: cpu, cuda, cuda:1 ...; by default a GPU where there is one.
        json: file for the figures, in seconds, bytes and numbers.

    Examples:
        nonlocalseg benchmark block
        nonlocalseg benchmark block --size 96 --json block.json
        nonlocalseg benchmark network --model galdv2 --backbone resnet101c --size 1024 2048 --device cuda
        nonlocalseg benchmark train --batch-size 4 --size 480
    """
    given = {"size": size, "model": model, "backbone": backbone, "batch_size": batch_size, "workers": workers}
    for name, value in {**given, "device": device}.items():
        if value is not None and name not in _READ[what]:
            raise ValueError(f"--{name.replace('_', '-')} has no effect on `benchmark {what}`: leave it out")
    if size is not None and min(size) < 1:
        raise ValueError(f"--size: {size[0]} {size[1]}; give height and width of 1 or more")
    where = check_device(device)
    options = {name: value for name, value in given.items() if value is not None and name != "size"}
    console = output()
    tables: list[Table] = []
    for title, measure in _measurements(what, size, where, repeat, options):
        say(f"measuring {title} ...")
        tables.append(measure())
        console.print(tables[-1].shown())
    if json is not None:
        from nonlocalseg.timing.tables import write_json

        console.print(f"figures in {write_json(json, tables)}")


def _measurements(
    what: What, size: tuple[int, int] | None, device: Any, repeat: int, options: dict[str, Any]
) -> list[tuple[str, Callable[[], Table]]]:
    """What is being done, and the function that does it, for each table of `what`."""
    from nonlocalseg import timing

    if what == "block":
        sizes = ((96, 96), (256, 128)) if size is None else (size,)
        return [
            (f"blocks on {h}x{w} positions", lambda h=h, w=w: timing.block((h, w), device, repeat)) for h, w in sizes
        ]
    if what == "operations":
        return [(what, lambda: timing.operations(size or (256, 128), device, repeat))]
    if what == "head":
        return [(what, lambda: timing.head(size or (64, 128), device, repeat, **options))]
    if what == "network":
        return [("a network", lambda: timing.network(size or (512, 1024), device, repeat, **options))]
    if what == "local-attention":
        return [
            ("local attention", lambda: timing.local_attention(size or (97, 97), device, repeat)),
            ("networks with local distribution", lambda: timing.distribution((512, 512), device, repeat)),
        ]
    if what == "train":
        options = {**options, "models": (options.pop("model"),)} if "model" in options else options
        return [("training steps", lambda: timing.train_step(size or (480, 480), device, repeat, **options))]
    return [("the loader", lambda: timing.loader(size or (769, 769), repeat, **options))]
