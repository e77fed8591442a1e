"""The fastest exact or half-precision form of a model on a device: folding, memory format, precision, compilation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from nonlocalseg.blocks.basic import resize, to_channels_last
from nonlocalseg.models.folding import fold
from nonlocalseg.models.segmenter import Segmenter
from nonlocalseg.runtime import cpu_flags

FINE_STRIDE = 4


class Float32(nn.Module):
    """A convolution that computes in float32 where its surroundings run in half precision."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self.conv(x.float())


class SpedUp(nn.Module):
    """A folded model that runs in `precision` and answers in float32. `choices` says what was chosen, and why. run: what
    another runtime makes of images, in place of the model: its scores on the head's grid.

    Called like the Segmenter it was made from; `classes`, `palette`, `align_corners`, `view` and `config` are its own.
    """

    def __init__(
        self,
        model: Segmenter,
        precision: torch.dtype,
        compiled: bool,
        choices: tuple[str, ...],
        run: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.precision = precision
        self.choices = choices
        self.classes, self.palette, self.align_corners = model.classes, model.palette, model.align_corners
        self.view, self.config = model.view, model.config
        self._run = run
        self._coarse = torch.compile(model.coarse, dynamic=True) if compiled else model.coarse

    @property
    def num_classes(self) -> int:
        return self.model.num_classes

    @property
    def mean(self) -> Tensor:
        return self.model.mean

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        logits, padded = self.coarse(images)
        return {"out": resize(logits, padded, self.align_corners)[..., : images.shape[2], : images.shape[3]]}

    def coarse(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """As `Segmenter.coarse`, in float32."""
        if self._run is not None:
            return self._run(images.contiguous()), self.model.backbone.padded_size(images.shape[2], images.shape[3])
        images = images.contiguous(memory_format=torch.channels_last)
        half = self.precision != torch.float32
        with torch.autocast(images.device.type, self.precision if half else None, enabled=half):
            logits, padded = self._coarse(images)
        return logits.float(), padded


def speed_up(model: Segmenter, device: str | torch.device = "cpu") -> SpedUp:
    """The model folded, in channels_last, on `device`, and in the precision that is fast there.

    bfloat16 on CPUs with bfloat16 instructions and on GPUs from compute capability 8 on, float16 on older GPUs, float32
    elsewhere. Under bfloat16 the backbone's convolutions up to stride 4 stay in float32: rounding their maps to 8 bits
    cost MobileNetV2 0.7 points of mIoU. Compiled on GPUs only: on a CPU it takes longer than most jobs gain. The scores
    differ from the model's own by half precision's rounding.
    """
    if not isinstance(model, Segmenter):  # pyright: ignore[reportUnnecessaryIsInstance]  # not all callers have types
        raise ValueError("--fast is for models that are networks; an exported file is as fast as its runtime makes it")
    device = torch.device(device)
    choices = ["folded", "channels_last"]
    compiled = False
    if device.type == "cuda":
        modern = torch.cuda.get_device_capability(device)[0] >= 8
        precision = torch.bfloat16 if modern else torch.float16
        compiled = True
        choices += [f"{'bfloat16' if modern else 'float16'}", "compiled"]
    elif device.type == "cpu" and cpu_has_bfloat16():
        precision = torch.bfloat16
        choices += ["bfloat16 (this CPU has instructions for it)"]
    else:
        precision = torch.float32
        choices += [f"float32 (no fast half precision on this {device.type})"]
    folded = to_channels_last(fold(model.eval()).to(device))
    if precision == torch.bfloat16 and keep_fine_convolutions(folded):
        choices.append(f"float32 up to stride {FINE_STRIDE}")
    return SpedUp(folded, precision, compiled, tuple(choices)).eval()


@torch.no_grad()
def keep_fine_convolutions(model: Segmenter) -> int:
    """Put the backbone's convolutions whose maps are at least 1 / `FINE_STRIDE` of the image into `Float32`; how many."""
    side = 64
    fine: set[nn.Module] = set()

    def look(conv: nn.Module, _: object, maps: Tensor) -> None:
        if maps.shape[-1] * FINE_STRIDE >= side:
            fine.add(conv)

    convolutions = [module for module in model.backbone.modules() if isinstance(module, nn.Conv2d)]
    hooks = [conv.register_forward_hook(look) for conv in convolutions]
    model(torch.zeros(1, 3, side, side, device=model.mean.device, dtype=model.mean.dtype))
    for hook in hooks:
        hook.remove()
    for parent in list(model.backbone.modules()):
        for name, child in list(parent.named_children()):
            if child in fine and isinstance(child, nn.Conv2d):
                setattr(parent, name, Float32(child))
    return len(fine)


def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware, as far as the system tells (Linux on x86 and Arm)."""
    return bool(set(cpu_flags()) & {"avx512_bf16", "amx_bf16", "bf16"})
