"""What the processes of one training agree on: that one of them cannot go on, which all then stop for."""

from __future__ import annotations

from lightning import Trainer

from nonlocalseg.runtime import gather


def any_of_all(here: bool, trainer: Trainer) -> bool:
    """Whether it is so in any process; each must ask."""
    return trainer.strategy.reduce_boolean_decision(here, all=False) if trainer.world_size > 1 else here


def stop_for(problem: str | None, trainer: Trainer) -> None:
    """Where any process has a problem, the first one raises ValueError with it and the others leave; each must ask."""
    if any_of_all(problem is not None, trainer):
        message = next(found for found in gather(problem) if found is not None)
        leave(trainer, ValueError(message))


def leave(trainer: Trainer, error: BaseException) -> None:
    """Raises `error` in the first process; in the others, which have the same one, nothing is to be said.

    They end with 0, because Lightning kills the first process, before it has told why, where one it started fails.
    """
    raise error if trainer.is_global_zero else SystemExit(0)
