"""The order of the images and their augmentation depend on seed and step, not on processes or interruptions."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from nonlocalseg.recipes.schema import Phase
from nonlocalseg.training.data import Draw, DrawOrder, SeededImages, SegmentationData, collate, mix_seed


def order(size=7, steps=6, batch_size=4, parts=1, rank=0, world=1, seed=0, first=0) -> list[list[Draw]]:
    draws = DrawOrder(size, steps, batch_size, parts, rank, world, seed)
    draws.first = first
    assert len(draws) == steps * parts
    return list(draws)


def test_every_pass_shows_every_image_once():
    indices = [draw.index for batch in order(size=8) for draw in batch]
    for start in range(0, 24, 8):
        assert sorted(indices[start : start + 8]) == list(range(8))
    assert indices[:8] != indices[8:16]


def test_resumed_order_goes_on():
    assert order(first=2) == order()[2:]


@pytest.mark.parametrize(("parts", "world"), [(2, 1), (1, 2), (2, 2)])
def test_a_step_sees_the_same_images_however_it_is_split(parts, world):
    whole = order()
    split = [order(parts=parts, rank=rank, world=world) for rank in range(world)]
    for step in range(6):
        shares = [batch for rank in split for batch in rank[step * parts : (step + 1) * parts]]
        assert Counter(draw for share in shares for draw in share) == Counter(whole[step])


def test_data_smaller_than_a_batch_fills_it():
    first = order(size=3, batch_size=8)[0]
    assert len(first) == 8
    assert {draw.index for draw in first} == {0, 1, 2}
    assert len({draw.number for draw in first}) == 8


def test_uneven_split_is_refused():
    with pytest.raises(ValueError, match="multiple of 3"):
        order(world=3)


class Noise(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.rand(3)


def test_augmentation_depends_on_the_draw_alone():
    images = SeededImages(Noise(), seed=1)
    torch.manual_seed(5)
    first = images[Draw(0, 10)]
    after = torch.rand(1)
    torch.manual_seed(6)
    assert torch.equal(images[Draw(0, 10)], first)
    assert not torch.equal(images[Draw(0, 11)], first)
    assert not torch.equal(SeededImages(Noise(), seed=2)[Draw(0, 10)], first)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))  # the main process's own generator is left alone


def test_mixed_seeds_differ():
    assert len({mix_seed(*parts) for parts in ((1, 2), (2, 1), (1, 3), (1,), (2,), (0, 1))}) == 6


def test_unreadable_image_becomes_a_message():
    class Broken(Noise):
        def __getitem__(self, index: int) -> torch.Tensor:
            raise ValueError("a.png is broken")

    images = SeededImages(Broken(), seed=0)
    assert collate([{"image": torch.zeros(1)}, images[Draw(0, 0)]]) == {"error": "a.png is broken"}


def test_labels_are_left_out_where_an_image_has_none():
    whole = {"image": torch.zeros(3, 2, 2), "label": torch.zeros(2, 2), "index": 1}
    assert set(collate([whole, whole])) == {"image", "label"}
    assert set(collate([whole, {"image": whole["image"]}])) == {"image"}


def test_first_batch_is_that_of_the_loader():
    phase = Phase(data="synthetic", data_options={"length": 5}, split="train+val", batch_size=4, crop=(64, 64), steps=3)
    data = SegmentationData(phase, (0.5, 0.5, 0.5), seed=7, workers=0, parts=2)
    assert (len(data.train_images), len(data.val_images or ())) == (10, 5)
    for world in (1, 2):
        batch = data.first_batch(world)
        assert batch["image"].shape == (2 // world, 3, 64, 64)
        reader = SeededImages(data.train_images, 7)
        expected = collate([reader[draw] for draw in next(iter(data.order(0, world)))])
        assert torch.equal(batch["image"], expected["image"])
