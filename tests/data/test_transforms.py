"""Image and label stay in step, the crop has its size, the padding its values, and the draws their distribution."""

from __future__ import annotations

import pytest
import torch
from torchvision import tv_tensors

from nonlocalseg.data.augmentation import Augmentation
from nonlocalseg.data.transforms import RandomScaleCrop, train_transform


def pair(height: int, width: int) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
    """A picture whose red is the row and whose green is the column, and a label that is the row."""
    row = torch.arange(height, dtype=torch.uint8)[:, None].expand(height, width)
    column = torch.arange(width, dtype=torch.uint8)[None].expand(height, width)
    return tv_tensors.Image(torch.stack([row, column, row])), tv_tensors.Mask(row.clone())


@pytest.mark.parametrize("size", [(40, 60), (100, 200), (7, 150), (64, 64)])
def test_size_and_types(size: tuple[int, int]) -> None:
    transform = train_transform(Augmentation(crop=(64, 48), class_balance=0.75))
    for seed in range(10):
        torch.manual_seed(seed)
        image, label = transform(*pair(*size))
        assert isinstance(image, tv_tensors.Image)
        assert isinstance(label, tv_tensors.Mask)
        assert image.shape == (3, 64, 48)
        assert label.shape == (64, 48)
        assert (image.dtype, label.dtype) == (torch.float32, torch.uint8)
        assert 0 <= image.min() <= image.max() <= 1


def test_repeatable() -> None:
    transform = train_transform(Augmentation(crop=(64, 48)))
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(transform(*pair(100, 120)))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert not torch.equal(results[0][0], results[2][0])


@pytest.mark.parametrize("factor", [0.5, 0.83, 1.0, 1.7, 2.0])
def test_label_stays_on_the_image(factor: float) -> None:
    transform = RandomScaleCrop((80, 80), (factor, factor))
    for seed in range(5):
        torch.manual_seed(seed)
        image, label = transform(*pair(200, 180))
        error = image[0].float() - label.float()
        assert error.abs().max() <= 2
        assert error.mean().abs() < 0.15  # "nearest" instead of "nearest_exact" is half a pixel off


def test_scale_is_that_of_the_whole_image() -> None:
    torch.manual_seed(0)
    image, _ = RandomScaleCrop((60, 60), (2.0, 2.0))(*pair(100, 200))
    assert (image[1, 0, -1] - image[1, 0, 0]).item() == pytest.approx(29, abs=1)
    image, label = RandomScaleCrop((100, 100), (0.5, 0.5))(*pair(100, 200))
    assert (label != 255).any(1).sum() == 50


def test_padding() -> None:
    image, label = RandomScaleCrop((60, 50), (1.0, 1.0), mean=(0.2, 0.4, 0.6))(*pair(20, 30))
    assert (label != 255).sum() == 20 * 30
    assert image[:, label == 255].unique(dim=1).squeeze(1).tolist() == [51, 102, 153]


def test_every_position_is_drawn() -> None:
    torch.manual_seed(0)
    crop = RandomScaleCrop((4, 4), (1.0, 1.0))
    corners = [crop(*pair(6, 6))[0][:2, 0, 0].tolist() for _ in range(300)]
    assert {tuple(corner) for corner in corners} == {(row, column) for row in range(3) for column in range(3)}


def test_scales_cover_the_range() -> None:
    torch.manual_seed(0)
    crop = RandomScaleCrop((50, 50), (0.5, 2.0))
    spans = torch.tensor([crop(*pair(250, 250))[0][1].float().diff(dim=1).mean().item() for _ in range(300)])
    factors = 1 / spans
    assert 0.48 < factors.min() < 0.6
    assert 1.85 < factors.max() < 2.1
    assert factors.mean().item() == pytest.approx(1.25, abs=0.1)


def test_whole_image_when_crop_is_its_size() -> None:
    given = pair(30, 40)
    image, label = train_transform(Augmentation(crop=(30, 40), scale=(1, 1), flip=0, brightness=0))(*given)
    torch.testing.assert_close(torch.Tensor(image), given[0].float() / 255)
    assert torch.equal(label, given[1])


def test_flip_and_brightness() -> None:
    given = pair(30, 40)
    image, label = train_transform(Augmentation(crop=(30, 40), scale=(1, 1), flip=1, brightness=0))(*given)
    torch.testing.assert_close(torch.Tensor(image), given[0].flip(-1).float() / 255)
    assert torch.equal(label, given[1].flip(-1))
    torch.manual_seed(0)
    means = []
    for _ in range(50):
        image, label = train_transform(Augmentation(crop=(30, 40), scale=(1, 1), flip=0, brightness=0.2))(*given)
        assert torch.equal(label, given[1])
        means.append(255 * image.mean() / given[0].float().mean())
    assert 0.78 < min(means) < 0.9
    assert 1.1 < max(means) < 1.22


def test_short_side_is_the_unit_of_the_scale() -> None:
    """An image of 40 x 80 at a shorter side of 20 is itself at scale 0.5, whatever its own size."""
    label = torch.arange(3200, dtype=torch.int64).reshape(40, 80) % 7
    given = tv_tensors.Image(torch.randint(0, 256, (3, 40, 80), dtype=torch.uint8)), tv_tensors.Mask(label)
    results = []
    for side, scale in ((20, (1.0, 2.0)), (None, (0.5, 1.0))):
        torch.manual_seed(0)
        augmentation = Augmentation(crop=(24, 30), brightness=0, short_side=side, scale=scale)
        results.append(train_transform(augmentation)(*given))
    for ours, expected in zip(*results, strict=True):
        assert torch.equal(ours, expected)


def test_class_balance_redraws() -> None:
    label = torch.zeros(40, 400, dtype=torch.uint8)
    label[:, 380:] = 1
    given = tv_tensors.Image(torch.zeros(3, 40, 400, dtype=torch.uint8)), tv_tensors.Mask(label)

    def share(limit: float | None) -> float:
        torch.manual_seed(0)
        crop = RandomScaleCrop((40, 40), (1.0, 1.0), class_balance=limit)
        return sum(0.25 <= crop(*given)[1].float().mean().item() <= 0.75 for _ in range(200)) / 200

    assert share(None) < 0.1
    assert share(0.75) > 0.2
