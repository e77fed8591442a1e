"""Training and validation batches whose order and augmentation depend on the seed and the step alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, cast

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Sampler

from nonlocalseg.data.dataset import SegmentationDataset, file_at
from nonlocalseg.data.readers import Images, WatchedLoader
from nonlocalseg.data.transforms import train_transform
from nonlocalseg.recipes.schema import Phase
from nonlocalseg.runtime import worker_count
from nonlocalseg.training.signals import ignore_signals


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
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def __len__(self) -> int:
        return self.steps * self.parts

    def __iter__(self) -> Iterator[list[Draw]]:
        for batch in range(self.first, len(self)):
            start = (batch * self.world + self.rank) * self.each
            yield [self._draw(number) for number in range(start, start + self.each)]

    def _draw(self, number: int) -> Draw:
        epoch, position = divmod(number, self.size)
        if self._epoch != epoch:
            self._epoch = epoch
            self._order = np.random.default_rng(mix_seed(self.seed, epoch)).permutation(self.size)
        return Draw(int(self._order[position]), number)


class SeededImages(Dataset):
    """A data set read by `Draw`: the augmentation of draw n depends on (seed, n), not on the process that does it.

    Whatever is random in it must come from torch's generator. An image that cannot be read comes back as the message of
    its error, because an exception that leaves a worker process arrives as a printed traceback.
    """

    def __init__(self, images: Images, seed: int) -> None:
        self.images, self.seed = images, seed

    def __getitem__(self, draw: Draw | int) -> Any:
        try:
            if isinstance(draw, int):
                return self.images[draw]
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(mix_seed(self.seed, draw.number))
                return self.images[draw.index]
        except (ValueError, OSError) as error:
            return str(error)

    def __len__(self) -> int:
        return len(self.images)


def collate(items: list[Any]) -> dict[str, Any]:
    """Samples -> {"image": [B, 3, H, W], "label": [B, H, W]}, or {"error": message} where a file could not be read."""
    if not items:
        return {}
    errors = [item for item in items if isinstance(item, str)]
    if errors:
        return {"error": errors[0]}
    keys = [key for key in ("image", "label") if all(key in item for item in items)]
    return {key: torch.stack([item[key].as_subclass(torch.Tensor) for item in items]) for key in keys}


def _joined(parts: list[SegmentationDataset]) -> ConcatDataset[dict[str, Any]]:
    """One data set of several, which are data sets to torch by what they can do alone, so that it need not be imported."""
    return ConcatDataset(cast("list[Dataset[dict[str, Any]]]", parts))


class SegmentationData(lightning.LightningDataModule):
    """The loaders of one phase. `mean` is the model's, RGB in [0, 1]: it fills the border of padded crops.

    `loaders` are those that have been made.
    """

    def __init__(
        self, phase: Phase, mean: tuple[float, float, float], seed: int, workers: int | None, parts: int
    ) -> None:
        super().__init__()
        self.phase, self.seed, self.parts = phase, seed, parts
        self.workers = worker_count(workers)
        self.loaders: list[WatchedLoader] = []
        self.train_parts = phase.labelled("train on", train_transform(phase, mean))
        self.val_parts = phase.validation.labelled("validate on") if phase.validation else []
        self.train_images = _joined(self.train_parts)
        self.val_images = _joined(self.val_parts) if self.val_parts else None

    def order(self, rank: int, world: int) -> DrawOrder:
        """What each batch of process `rank` of `world` holds."""
        phase = self.phase
        return DrawOrder(len(self.train_images), phase.steps, phase.batch_size, self.parts, rank, world, self.seed)

    def batch(self, number: int, rank: int, world: int) -> list[Draw]:
        """What the `number`-th batch of process `rank` of `world` holds."""
        order = self.order(rank, world)
        order.first = number
        return next(iter(order))

    def file_of(self, draw: Draw) -> str:
        """The image that is read for a draw."""
        return file_at(self.train_parts, draw.index)

    def first_batch(self, world: int) -> dict[str, Tensor]:
        """The first batch of the training, as the first of `world` processes reads it."""
        reader = SeededImages(self.train_images, self.seed)
        return _readable(collate([reader[draw] for draw in self.batch(0, 0, world)]))

    def _loader(self, images: Images, parts: list[SegmentationDataset], batches: Iterable[list[Any]]) -> WatchedLoader:
        loader = WatchedLoader(
            SeededImages(images, self.seed),
            lambda index: file_at(parts, index),
            self.workers,
            batch_sampler=batches,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.workers > 0,
            worker_init_fn=ignore_signals,
        )
        self.loaders.append(loader)
        return loader

    def train_dataloader(self) -> WatchedLoader:
        trainer = self.trainer
        assert trainer is not None
        order = self.order(trainer.global_rank, trainer.world_size)
        order.first = trainer.global_step * self.parts
        return self._loader(self.train_images, self.train_parts, order)

    def val_dataloader(self) -> WatchedLoader | list[Any]:
        if self.val_images is None or self.trainer is None:
            return []
        rank, world = self.trainer.global_rank, self.trainer.world_size
        mine = [[index] for index in range(rank, len(self.val_images), world)]
        # [[]] where there are fewer images than processes
        return self._loader(self.val_images, self.val_parts, mine or [[]])


def _readable(batch: dict[str, Any]) -> dict[str, Any]:
    """Say which file could not be read, in one line and in the main process."""
    if "error" in batch:
        raise ValueError(batch["error"])
    return batch
