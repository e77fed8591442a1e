"""Whole images in tiles: every head that can gives the scores of the whole image, the others say why they cannot."""

from __future__ import annotations

import pytest
import torch

import nonlocalseg as nls
from nonlocalseg.inference.readers import TensorReader
from nonlocalseg.inference.streaming import Source, Sweep
from nonlocalseg.inference.windows import Window
from nonlocalseg.models.catalog import MODELS
from nonlocalseg.models.receptive import receptive_field
from nonlocalseg.models.segmenter import Segmenter

SIZE, TILE = (67, 333), (64, 96)
SHORT = {"aspp_rates": (1, 2, 3), "dense_rates": (1, 2), "distribute_dilation": 1, "psp_bins": (1, 3)}
WHOLE_ONLY = {
    "nonlocal": "NB and FNB relate every position with every other by a softmax",
    "fnb": "NB and FNB relate every position with every other by a softmax",
    "fusion_nonlocal": "NB and FNB relate every position with every other by a softmax",
    "fnb_nonlocal": "NB and FNB relate every position with every other by a softmax",
    "danet": "attention over positions relates every position",
    "dnl": "pairs of all positions are related by a softmax",
    "ccnet": "every position attends by a softmax to all of its row and column",
    "isa": "each position attends by a softmax to those at the same place of every window",
    "psanet": "every position has a mask of its own over all the others",
}


def tiny(name: str, backbone: str = "test_resnet.r160_in1k", **options) -> Segmenter:
    """A narrow model that sees as little as it can, with weights that let every block act."""
    start = MODELS[name].options
    narrow = {"channels": 8, "key_channels": 4, "value_channels": 4, "low_channels": 4, "coarse_channels": 4, **SHORT}
    narrow |= {"ema_channels": 8, "num_bases": 4, "num_codes": 4, "cgnl_groups": 2, "width": 8}
    changed = start.idle() | {field for field in narrow if not hasattr(start, field)}
    chosen = {key: value for key, value in narrow.items() if key not in changed}
    torch.manual_seed(0)
    model = nls.create_model(name, backbone, num_classes=5, auxiliary=False, **{**chosen, **options}).eval().double()
    for part in model.head.parameters():  # W_o and learnt factors start at zero
        if not part.any():
            torch.nn.init.normal_(part, std=0.3)
    for part in model.head.modules():
        if isinstance(part, torch.nn.BatchNorm2d) and part.running_var is not None:
            part.running_var.fill_(0.05)  # so that what blocks gather counts beside what they pass on
    return model


def photograph(size: tuple[int, int] = SIZE) -> torch.Tensor:
    """Float64 [1, 3, H, W], darker to the right, so that no tile is like another."""
    torch.manual_seed(1)
    return torch.rand(1, 3, *size, dtype=torch.float64) * torch.linspace(1, 0.2, size[1])


def in_tiles(model: Segmenter, images: torch.Tensor, crop: tuple[int, int] = TILE) -> torch.Tensor:
    """Logits in the model's precision, which `infer` would round to float32."""
    size = (images.shape[2], images.shape[3])
    source = Source(TensorReader(images[0]), size, False, model.align_corners, model.mean)
    sweep = Sweep(model, receptive_field(model), source, crop)
    with torch.no_grad():
        sweep.prepare()
        out = torch.full((1, model.num_classes, *size), torch.nan, dtype=images.dtype)
        for top in range(0, size[0], 50):
            for left in range(0, size[1], 70):
                window = Window(top, min(top + 50, size[0]), left, min(left + 70, size[1]))
                ((layer, share),) = sweep.layers(window)
                assert share is None
                out[window.area] = layer.place(layer.scores)
    return out


def assert_equal_to_whole(model: Segmenter, images: torch.Tensor) -> None:
    with torch.no_grad():
        whole = model(images)["out"]
    difference = (in_tiles(model, images) - whole).abs().max()
    assert difference <= 1e-10 * whole.abs().max()


@pytest.mark.parametrize("name", [name for name in MODELS if name not in WHOLE_ONLY])
def test_a_head_sees_in_tiles_what_it_sees_whole(name):
    assert_equal_to_whole(tiny(name), photograph())


@pytest.mark.parametrize(("name", "reason"), WHOLE_ONLY.items())
def test_a_head_that_cannot_says_why(name, reason):
    with pytest.raises(ValueError, match=f"^{reason}"):
        receptive_field(tiny(name))
