"""What the compared heads promise beyond the contract: bases that all processes share, no N x N matrix, quirks by name."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.multiprocessing as multiprocessing
from test_models import small
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import nonlocalseg as nls
from nonlocalseg.blocks.expectation import ExpectationMaximisation
from nonlocalseg.models.catalog import MODELS

ATTENDING = ("danet", "dnl", "ccnet", "isa", "emanet", "psanet", "encnet", "gcnet")


class Largest(TorchDispatchMode):
    """Remembers the elements of the largest tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if isinstance(found, Tensor) and not func.is_view and "expand" not in str(func):
            self.elements = max(self.elements, found.numel())
        return found


@pytest.mark.parametrize("name", ATTENDING)
def test_inference_never_holds_an_n_by_n_matrix(name):
    """Nor half of one: PSANet's strips of masks come nearest. Its map has half the height and width."""
    start = MODELS[name].options
    narrow = {"channels": 8, "key_channels": 4, "ema_channels": 8, "key_reduction": 2}
    options = dataclasses.replace(start, **{key: item for key, item in narrow.items() if hasattr(start, key)})
    head = MODELS[name].head.build(options, {3: 4, 4: 4, 5: 8}, 3).eval()
    features = {stage: torch.rand(1, channels, 32, 64) for stage, channels in ((3, 4), (4, 4), (5, 8))}
    count = 16 * 32 if name == "psanet" else 32 * 64
    with torch.no_grad(), Largest() as largest:
        head(features)
    assert 0 < largest.elements <= count**2 / 2


def test_bases_move_in_training_alone():
    torch.manual_seed(0)
    block = ExpectationMaximisation(6, 4, momentum=0.25).double()
    x = torch.randn(3, 6, 5, 7, dtype=torch.float64)
    before = block.bases.clone()
    block.eval()(x)
    assert torch.equal(block.bases, before)
    found = block._found(x)[0]
    block.train()(x)
    mean = torch.nn.functional.normalize(found.mean(0, keepdim=True), dim=1)
    torch.testing.assert_close(block.bases, 0.75 * before + 0.25 * mean)


def _learn(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    torch.manual_seed(0)
    block = ExpectationMaximisation(6, 4).train()
    block(torch.randn(2, 2, 6, 5, 7)[rank])
    torch.save(block.bases, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_bases_are_those_of_all_processes(tmp_path):
    multiprocessing.spawn(_learn, (str(tmp_path),), 2)
    shares = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    torch.manual_seed(0)
    alone = ExpectationMaximisation(6, 4).train()
    alone(torch.randn(2, 2, 6, 5, 7).flatten(0, 1))
    assert torch.equal(*shares)
    torch.testing.assert_close(shares[0], alone.bases)


def test_compact_masks_say_what_size_they_need():
    model = small("psanet", compact=True, mask_size=(3, 2)).eval()
    features = {5: torch.rand(1, model.backbone.channels[5], 6, 4)}
    assert model.head(features).shape == (1, 5, 6, 4)
    with pytest.raises(ValueError, match="masks of 3x2 need a map of as many positions, not 4x2"):
        model.head({5: torch.rand(1, model.backbone.channels[5], 8, 4)})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gcnet", {"fusion_types": ()}, "give channel_add, channel_mul or both"),
        ("encnet", {"lateral": (7,)}, "lateral: stage 7 cannot"),
        ("dnl", {"normalisation": "rescale", "temperature": 0.1}, "temperature has no effect"),
        ("psanet", {"mask_size": (0, 3)}, "mask_size"),
    ],
)
def test_mistakes_are_named(name, options, message):
    with pytest.raises(ValueError, match=message):
        nls.create_model(name, "test_resnet.r160_in1k", num_classes=2, **options)


def test_further_outputs_and_their_classifiers_can_be_left_out():
    model = small("danet", branch_weight=0.0, auxiliary=False).train()
    assert set(model(torch.rand(2, 3, 32, 32))) == {"out"}
    assert not [name for name, _ in model.named_parameters() if "_classifier" in name]
