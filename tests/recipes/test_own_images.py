"""What suits one's own images: a schedule by their number, a crop by their size."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from nonlocalseg.data.source import DataSource
from nonlocalseg.recipes.own_images import suited, suited_to
from nonlocalseg.training.plan import resolve


@pytest.mark.parametrize(
    ("count", "size", "steps", "crop", "short_side"),
    [
        (40, (480, 640), 1000, (480, 512), None),
        (1, (100, 70), 1000, (96, 64), None),
        (367, (360, 480), 4600, (352, 480), None),
        (3000, (3000, 4000), 37_500, (512, 512), 1024),
        (100_000, (20, 20), 40_000, (32, 32), None),
    ],
)
def test_schedule_and_crop(count, size, steps, crop, short_side):
    phase = suited(count, [size] * 3, "resnet50c")
    assert (phase.steps, phase.crop, phase.short_side) == (steps, crop, short_side)
    assert (phase.optimizer, phase.data, phase.warmup_steps) == ("sgd", "folder", min(200, steps // 10))


def test_a_transformer_learns_as_transformers_do():
    phase = suited(40, [(1000, 1000)], "vit_small_patch14_dinov2")
    assert (phase.optimizer, phase.crop, phase.rate) == ("adamw", (504, 504), 1e-4)


def folder_of(root, count, size):
    for kind in ("images", "masks"):
        for split in ("train", "val"):
            (root / kind / split).mkdir(parents=True)
    for split, images in (("train", count), ("val", 1)):
        for index in range(images):
            Image.fromarray(np.zeros((*size, 3), np.uint8)).save(root / f"images/{split}/{index}.png")
            Image.fromarray(np.zeros(size, np.uint8)).save(root / f"masks/{split}/{index}.png")
    (root / "classes.yaml").write_text("masks: {0: all}\n")


def test_the_images_decide_where_nothing_is_given(tmp_path):
    folder_of(tmp_path, 3, (200, 300))
    own = suited_to(DataSource(data="folder", root=str(tmp_path), split="train"), "resnet50c")
    assert (own.crop, own.steps) == ((192, 288), 1000)
    (phase,) = resolve(None, {"data": "folder", "root": tmp_path, "rate": 0.5}).phases
    assert (phase.crop, phase.steps, phase.rate, phase.ohem) == ((192, 288), 1000, 0.5, False)
    (phase,) = resolve(None, {"data": "folder", "root": tmp_path, "backbone": "swin_tiny_patch4_window7_224"}).phases
    assert phase.optimizer == "adamw"
