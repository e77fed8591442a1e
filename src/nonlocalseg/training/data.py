"""Training and validation batches whose order and augmentation depend on the seed and the step alone."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol, cast

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Sampler

from nonlocalseg.data.dataset import SegmentationDataset
from nonlocalseg.data.transforms import train_transform
from nonlocalseg.recipes.schema import Phase
from nonlocalseg.runtime import worker_count
from nonlocalseg.training.signals import ignore_signals

SILENCE = 300.0
"""Seconds without an image after which a process that reads images is taken for stopped."""


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


class Images(Protocol):
    """A data set whose length is known."""

    def __getitem__(self, index: int, /) -> Any: ...

    def __len__(self) -> int: ...


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


class WatchedLoader(DataLoader):
    """A loader that ends, with RuntimeError, where its processes give nothing for `SILENCE` seconds.

    PyTorch's own timeout does not: for an image that is ready the process that read it is asked as well, without end.
    """

    def __iter__(self) -> Any:
        before = set(multiprocessing.active_children())
        batches = super().__iter__()
        self.readers = getattr(self, "readers", set()) | (set(multiprocessing.active_children()) - before)
        return self._watched(batches)

    def _watched(self, batches: Iterator[Any]) -> Iterator[Any]:
        while True:
            watch = threading.Timer(SILENCE, self._kill)
            watch.daemon = True
            watch.start()
            try:
                batch = next(batches)
            except StopIteration:
                return
            except Exception as error:
                if watch.finished.is_set():
                    raise RuntimeError(f"DataLoader timed out after {SILENCE:g} seconds") from error
                raise
            finally:
                watch.cancel()
            yield batch

    def _kill(self) -> None:
        for process in self.readers:
            process.kill()


class SegmentationData(lightning.LightningDataModule):
    """The loaders of one phase. `mean` is the model's, RGB in [0, 1]: it fills the border of padded crops."""

    def __init__(
        self, phase: Phase, mean: tuple[float, float, float], seed: int, workers: int | None, parts: int
    ) -> None:
        super().__init__()
        self.phase, self.seed, self.parts = phase, seed, parts
        self.workers = worker_count(workers)
        self.train_images = _joined(phase.labelled("train on", train_transform(phase, mean)))
        validation = phase.validation
        self.val_images = _joined(validation.labelled("validate on")) if validation else None

    def order(self, rank: int, world: int) -> DrawOrder:
        """What each batch of process `rank` of `world` holds."""
        phase = self.phase
        return DrawOrder(len(self.train_images), phase.steps, phase.batch_size, self.parts, rank, world, self.seed)

    def first_batch(self, world: int) -> dict[str, Tensor]:
        """The first batch of the training, as the first of `world` processes reads it."""
        reader = SeededImages(self.train_images, self.seed)
        return _readable(collate([reader[draw] for draw in next(iter(self.order(0, world)))]))

    def _loader(self, images: Images, batches: Iterable[list[Any]]) -> DataLoader:
        return WatchedLoader(
            SeededImages(images, self.seed),
            batch_sampler=batches,
            num_workers=self.workers,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.workers > 0,
            worker_init_fn=ignore_signals,
        )

    def train_dataloader(self) -> DataLoader:
        trainer = self.trainer
        assert trainer is not None
        order = self.order(trainer.global_rank, trainer.world_size)
        order.first = trainer.global_step * self.parts
        return self._loader(self.train_images, order)

    def val_dataloader(self) -> DataLoader | list[Any]:
        if self.val_images is None or self.trainer is None:
            return []
        rank, world = self.trainer.global_rank, self.trainer.world_size
        mine = [[index] for index in range(rank, len(self.val_images), world)]
        return self._loader(self.val_images, mine or [[]])  # where there are fewer images than processes


def _readable(batch: dict[str, Any]) -> dict[str, Any]:
    """Say which file could not be read, in one line and in the main process."""
    if "error" in batch:
        raise ValueError(batch["error"])
    return batch
