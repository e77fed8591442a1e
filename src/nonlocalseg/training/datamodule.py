"""Training and validation batches whose order and augmentation depend on the seed and the step alone."""

from __future__ import annotations

import inspect
import os
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import lightning
import numpy as np
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Sampler

from nonlocalseg.data.catalog import DATASETS
from nonlocalseg.data.dataset import SegmentationDataset
from nonlocalseg.data.transforms import train_transform
from nonlocalseg.training.recipes import Phase


class Draw(NamedTuple):
    """The `number`-th image drawn since the start of training, and its index in the data set."""

    index: int
    number: int


def mix_seed(*parts: int) -> int:
    """One 63-bit seed from several numbers; unlike a sum, (1, 2) and (2, 1) differ."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


class DrawOrder(Sampler[list[Draw]]):
    """Batches of draws: every pass over the data is a permutation seeded with (seed, pass).

    The batches of one step are split evenly between the ranks and the accumulated parts. Iteration begins at batch
    `first`, so a resumed run goes on with the images that the interrupted one would have read next; `len` counts from
    the start. Where the data set is smaller than a batch, the next pass fills it up.
    """

    def __init__(self, size: int, steps: int, batch_size: int, parts: int, rank: int, world: int, seed: int) -> None:
        if batch_size % (parts * world):
            raise ValueError(
                f"batch_size {batch_size} cannot be split over {world} devices x {parts} accumulated parts: "
                f"give a multiple of {parts * world}"
            )
        self.size, self.steps, self.seed = size, steps, seed
        self.each = batch_size // (parts * world)  # images of one rank in one part
        self.parts, self.rank, self.world = parts, rank, world
        self.first = 0

    def __len__(self) -> int:
        return self.steps * self.parts

    def __iter__(self) -> Iterator[list[Draw]]:
        for batch in range(self.first, len(self)):
            start = (batch * self.world + self.rank) * self.each
            yield [self._draw(number) for number in range(start, start + self.each)]

    def _draw(self, number: int) -> Draw:
        epoch, position = divmod(number, self.size)
        if getattr(self, "_epoch", None) != epoch:
            self._epoch = epoch
            self._order = np.random.default_rng(mix_seed(self.seed, epoch)).permutation(self.size)
        return Draw(int(self._order[position]), number)


class SeededImages(Dataset):
    """A data set read by `Draw`: the augmentation of draw n depends on (seed, n), not on the process that does it.

    An image that cannot be read comes back as the message of its error, because an exception that leaves a worker
    process arrives as a printed traceback.
    """

    def __init__(self, images: Dataset, seed: int) -> None:
        self.images, self.seed = images, seed

    def __getitem__(self, draw: Draw | int) -> Any:
        try:
            if isinstance(draw, int):
                return self.images[draw]
            seed = mix_seed(self.seed, draw.number)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                random.seed(seed)
                np.random.seed(seed % 2**32)  # noqa: NPY002  # a data set may use the global generator
                return self.images[draw.index]
        except (ValueError, OSError) as error:
            return str(error)

    def __len__(self) -> int:
        return len(self.images)  # pyright: ignore[reportArgumentType]


def collate(items: list[Any]) -> dict[str, Any]:
    """Samples -> {"image": [B, 3, H, W], "label": [B, H, W]}, or {"error": message} where a file could not be read."""
    errors = [item for item in items if isinstance(item, str)]
    if errors:
        return {"error": errors[0]}
    keys = [key for key in ("image", "label") if all(key in item for item in items)]
    return {key: torch.stack([item[key].as_subclass(torch.Tensor) for item in items]) for key in keys}


def check_data_options(phase: Phase) -> None:
    """ValueError that names the first of the `data_options` that the data set does not have."""
    options = inspect.signature(DATASETS[phase.data]).parameters.keys() - {"root", "split", "transform", "strict"}
    if unknown := sorted(phase.data_options.keys() - options):
        known = f"it has {', '.join(sorted(options))}" if options else "it has none"
        raise ValueError(f"data_options: {phase.data} has no option {unknown[0]!r}; {known}")


def open_data(phase: Phase, split: str, transform: Any = None) -> list[SegmentationDataset]:
    """The data sets of the `+`-joined splits. ValueError for an unknown name or option, and where they are empty."""
    if phase.data not in DATASETS:
        raise ValueError(f"no data set is called {phase.data!r}; there are {', '.join(sorted(DATASETS))}")
    check_data_options(phase)
    try:
        parts = [
            DATASETS[phase.data](root=phase.root, split=part, transform=transform, **phase.data_options)
            for part in split.split("+")
        ]
    except TypeError as error:  # a value of another kind
        raise ValueError(f"data_options: {phase.data} does not take these ({error})") from error
    if not sum(len(part) for part in parts):
        raise ValueError(f"{phase.root or phase.data}: the split {split!r} holds no images")
    return parts


class SegmentationData(lightning.LightningDataModule):
    """The loaders of one phase. `mean` is the model's, RGB in [0, 1]: it fills the border of padded crops."""

    def __init__(
        self, phase: Phase, mean: tuple[float, float, float], seed: int, workers: int | None, parts: int
    ) -> None:
        super().__init__()
        transform = train_transform(
            phase.crop,
            scale=phase.scale,
            flip=phase.flip,
            brightness=phase.brightness,
            mean=mean,
            class_balance=phase.class_balance,
            short_side=phase.short_side,
        )
        self.phase, self.seed, self.parts = phase, seed, parts
        self.workers = min(4, os.cpu_count() or 1) if workers is None else workers
        self.train_images = self._labelled(phase.split, "train", transform)
        self.val_images = self._labelled(phase.val_split, "validate") if phase.val_split else None

    def _labelled(self, split: str, purpose: str, transform: Any = None) -> ConcatDataset:
        parts = open_data(self.phase, split, transform)
        if any(pair.label is None for part in parts for pair in part.pairs):
            raise ValueError(f"{self.phase.root or self.phase.data}: the split {split!r} has no labels to {purpose} on")
        return ConcatDataset(parts)

    def _loader(self, images: Dataset, batches: Any) -> DataLoader:
        return DataLoader(
            SeededImages(images, self.seed),
            batch_sampler=batches,
            num_workers=self.workers,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.workers > 0,
        )

    def train_dataloader(self) -> DataLoader:
        trainer = self.trainer
        assert trainer is not None
        order = DrawOrder(
            len(self.train_images),
            self.phase.steps,
            self.phase.batch_size,
            self.parts,
            trainer.global_rank,
            trainer.world_size,
            self.seed,
        )
        order.first = trainer.global_step * self.parts
        return self._loader(self.train_images, order)

    def val_dataloader(self) -> DataLoader | list[Any]:
        if self.val_images is None or self.trainer is None:
            return []
        mine = range(self.trainer.global_rank, len(self.val_images), self.trainer.world_size)
        return self._loader(self.val_images, [[index] for index in mine])

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Say which file could not be read, in one line and in the main process."""
        if "error" in batch:
            raise ValueError(batch["error"])
        return batch
