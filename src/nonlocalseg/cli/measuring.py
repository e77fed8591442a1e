"""The verb that measures speed, memory and error: benchmark."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from nonlocalseg.cli.options import Given, verb
from nonlocalseg.cli.shared import OnDevice
from nonlocalseg.cli.terminal import output, say
from nonlocalseg.data.source import DataSource
from nonlocalseg.values import Count, Metavar, Positional, Size, value

if TYPE_CHECKING:
    from nonlocalseg.timing.tables import Table

What = Literal["block", "operations", "head", "network", "export", "local-attention", "train", "loader"]
# Which options each measurement reads, beside --repeat and --json.
_READ = {
    "block": {"size", "device"},
    "operations": {"size", "device"},
    "head": {"size", "device", "backbone"},
    "network": {"size", "device", "backbone", "model"},
    "export": {"size", "model", "backbone", "calibrate"},
    "local-attention": {"size", "device"},
    "train": {"size", "device", "backbone", "model", "batch_size"},
    "loader": {"size", "workers"},
}


@value
class Benchmark(OnDevice):
    """The verb's own options."""

    what: Annotated[What, Positional()]
    """What to measure."""
    size: Size | None = None
    """Height and width; of the feature map for block, operations, head and local-attention, of the image for network,
    of the crop for train and loader; one number for both; by default the papers' sizes."""
    model: Annotated[str | None, Metavar("MODEL")] = None
    """The model for network (default: ann), which may be an exported file, for export (default: ann), which may be a
    folder or name of one that was trained, and for train (default: ann and galdv2)."""
    backbone: Annotated[str | None, Metavar("NAME")] = None
    """The timm backbone for head, network, export and train (default: resnet50c)."""
    calibrate: Annotated[str | None, Metavar("DIR")] = None
    """For export: a folder with photographs, on which INT8 is calibrated."""
    batch_size: Count | None = None
    """Images in a training step (default: 2)."""
    workers: Count | None = None
    """Processes that load images (default: 1)."""
    repeat: Count = 5
    """Rounds; the median is printed."""
    json: Annotated[str | None, Metavar("FILE")] = None
    """File for the figures, in seconds, bytes and numbers."""

    def __post_init__(self) -> None:
        for name in ("size", "model", "backbone", "batch_size", "workers", "device", "calibrate"):
            if getattr(self, name) is not None and name not in _READ[self.what]:
                flag = "--" + name.replace("_", "-")
                raise ValueError(f"{flag} has no effect on `benchmark {self.what}`: leave it out")

    def given(self, *names: str) -> dict[str, Any]:
        """Those of the options that are set."""
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


@verb(Benchmark, DataSource)
def benchmark(own: Benchmark, given: Given) -> None:
    """Measure time, multiply-adds, peak memory and error on this machine.

    block: NB and APNB, the printed equations against ours (ANN, Table 1). operations: where a block's time goes (ANN,
    Fig. 2). head: ANN's head, plain and folded. network: a whole model in every form it can run in (ANN, Table 2).
    export: a model in torch, onnxruntime and OpenVINO, in float and in INT8; with --data or --root its mIoU in each.
    local-attention: LDv2's core against its unfolded form, and what local distribution adds to a network (GALD, Table
    IV). train: one training step. loader: decoding and augmentation. Forms are timed in turn in one process, memory is
    measured, and the papers' own figures stand beside ours.

    Examples:
        nonlocalseg benchmark block
        nonlocalseg benchmark block --size 96 --json block.json
        nonlocalseg benchmark network --model galdv2 --backbone resnet101c --size 1024 2048 --device cuda
        nonlocalseg benchmark network --model model.onnx --size 512
        nonlocalseg benchmark export --model runs/mine --calibrate photos/ --data camvid --root CamVid --split test
        nonlocalseg benchmark train --batch-size 4 --size 480
    """
    console = output()
    tables: list[Table] = []
    if given and own.what != "export":
        raise ValueError(f"--{next(iter(given))} has no effect on `benchmark {own.what}`: leave it out")
    for title, measure in _measurements(own, given):
        say(f"measuring {title} ...")
        tables.append(measure())
        console.print(tables[-1].shown())
    if own.json is not None:
        from nonlocalseg.timing.tables import write_json

        console.print(f"figures in {write_json(own.json, tables)}")


def _measurements(own: Benchmark, given: Given) -> list[tuple[str, Callable[[], Table]]]:
    """What is being done, and the function that does it, for each table."""
    from nonlocalseg.exporting.formats import is_exported
    from nonlocalseg.runtime import pick_device
    from nonlocalseg.timing import blocks, loading, networks, steps

    device, repeat, size = pick_device(own.device), own.repeat, own.size
    if own.what == "block":
        sizes = ((96, 96), (256, 128)) if size is None else (size,)
        return [
            (f"blocks on {h}x{w} positions", lambda h=h, w=w: blocks.block((h, w), device, repeat)) for h, w in sizes
        ]
    if own.what == "operations":
        return [("operations", lambda: blocks.operations(size or (256, 128), device, repeat))]
    if own.what == "head":
        return [("head", lambda: networks.head(size or (64, 128), device, repeat, **own.given("backbone")))]
    if own.what == "network":
        if own.model is not None and is_exported(own.model):
            if own.backbone is not None:
                raise ValueError(f"--backbone: {own.model} is an exported file, which has its own; leave it out")
            return [(own.model, lambda: networks.exported_file(str(own.model), size, device, repeat))]
        more = own.given("model", "backbone")
        return [("a network", lambda: networks.network(size or networks.SIZE, device, repeat, **more))]
    if own.what == "export":
        return [("every form of a model", lambda: _exports(own, given))]
    if own.what == "local-attention":
        return [
            ("local attention", lambda: blocks.local_attention(size or (97, 97), device, repeat)),
            ("networks with local distribution", lambda: networks.distribution((512, 512), device, repeat)),
        ]
    if own.what == "train":
        more = own.given("backbone", "batch_size")
        if own.model is not None:
            more["models"] = (own.model,)
        return [("training steps", lambda: steps.train_step(size or (480, 480), device, repeat, **more))]
    return [("the loader", lambda: loading.loader(size or (769, 769), repeat, **own.given("workers")))]


def _exports(own: Benchmark, given: Given) -> Table:
    from nonlocalseg.evaluation.scoring import evaluate
    from nonlocalseg.inference.calibration import calibration_images
    from nonlocalseg.models.catalog import MODELS
    from nonlocalseg.timing import exported, networks
    from nonlocalseg.zoo.pretrained import pretrained_network

    name, backbone = own.model or "ann", own.backbone or "resnet50c"
    if name in MODELS:
        if given:
            raise ValueError(f"--{next(iter(given))}: {name} with drawn weights has no mIoU; give a trained --model")
        model, title = networks.drawn_model(name, backbone, auxiliary=False), f"{name} on {backbone}"
    elif own.backbone is not None:
        raise ValueError(f"--backbone: {name} is a model that has its own; leave it out")
    else:
        model, title = pretrained_network(name).eval(), name
    photographs = None if own.calibrate is None else calibration_images(own.calibrate, model.view)
    return exported.exports(
        model,
        title,
        own.size or exported.SIZE,
        own.repeat,
        photographs,
        (lambda form: evaluate(form, **given).scores.mean_iou) if given else None,
    )
