"""Sampling against explicit loops over bins, at every relation of map size to bin count."""

from __future__ import annotations

import math

import pytest
import torch

from nonlocalseg.blocks.sampling import AverageSampling, MaxSampling, RandomSampling

SIZES = [(19, 23), (8, 8), (5, 7), (1, 1), (3, 17)]


def by_hand(x: torch.Tensor, sizes: tuple[int, ...], reduce) -> torch.Tensor:
    columns = []
    height, width = x.shape[-2:]
    for n in sizes:
        for i in range(n):
            for j in range(n):
                rows = slice(i * height // n, math.ceil((i + 1) * height / n))
                cols = slice(j * width // n, math.ceil((j + 1) * width / n))
                columns.append(reduce(x[:, :, rows, cols].flatten(2)))
    return torch.stack(columns, dim=2)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", SIZES)
def test_average_is_the_mean_of_every_bin(size, layout):
    x = torch.randn(2, 5, *size, dtype=torch.float64).to(memory_format=layout)
    sampled = AverageSampling((1, 3, 6, 8))(x)[0]
    assert sampled.shape == (2, 5, 110)
    torch.testing.assert_close(sampled, by_hand(x, (1, 3, 6, 8), lambda bin: bin.mean(2)))


@pytest.mark.parametrize("size", SIZES)
def test_max_is_the_largest_of_every_bin(size):
    x = torch.randn(2, 5, *size)
    assert torch.equal(MaxSampling((2, 6))(x)[0], by_hand(x, (2, 6), lambda bin: bin.amax(2)))


def test_cells_are_the_bins():
    sampling, (height, width) = AverageSampling((1, 3, 8)), (19, 23)
    x = torch.randn(1, 2, height, width, dtype=torch.float64)
    means = [x[:, :, t:b, left:right].mean((2, 3)) for t, left, b, right in sampling.cells(height, width).tolist()]
    torch.testing.assert_close(sampling(x)[0], torch.stack(means, dim=2))


@pytest.mark.parametrize("training", [True, False])
def test_random_draws_without_replacement_and_shares_the_draw(training):
    sampling = RandomSampling((3, 4)).train(training)
    x = torch.arange(30.0).view(1, 1, 5, 6)
    first, second = sampling(x, x + 100)
    assert torch.equal(first + 100, second)
    assert first[0, 0, :9].unique().numel() == 9
    assert first[0, 0, 9:].unique().numel() == 16


def test_random_is_fixed_in_evaluation_and_fresh_in_training():
    sampling = RandomSampling((6,))
    x = torch.randn(1, 1, 40, 40)
    assert not torch.equal(sampling(x)[0], sampling(x)[0])
    sampling.eval()
    assert torch.equal(sampling(x)[0], sampling(x)[0])
    spread = sampling.positions(40, 40)
    assert spread.min() < 400
    assert spread.max() > 1200


def test_random_repeats_positions_only_where_it_must():
    sampling = RandomSampling((3,)).eval()
    positions = sampling.positions(2, 2)
    assert positions.shape == (9,)
    assert int(positions.max()) < 4


@pytest.mark.parametrize("sizes", [(), (0,), (3, -1)])
def test_sizes_are_checked(sizes):
    with pytest.raises(ValueError, match="anchor_sizes"):
        AverageSampling(sizes)
