"""The verb that puts a model on the Hugging Face hub: push."""

from __future__ import annotations

from typing import Annotated

from nonlocalseg.cli.options import Given, verb
from nonlocalseg.cli.terminal import output, show
from nonlocalseg.values import Metavar, Names, Positional, value


@value
class Push:
    """The verb's own options."""

    model: Annotated[str, Positional()]
    """The folder of a run, or of a saved model."""
    repository: Annotated[str, Positional()]
    """OWNER/NAME on the hub."""
    private: bool = False
    """Where the repository is made now: visible to its owner alone."""
    licence: Annotated[str | None, Metavar("ID")] = None
    """Of the weights, as the hub spells it, such as cc-by-4.0; by default the terms of the training data."""
    evaluation: Annotated[Names, Metavar("FILE")] = ()
    """Further figures: .json files that `nonlocalseg evaluate` wrote for these weights."""
    dry_run: bool = False
    """Print the card and push nothing."""


@verb(Push)
def push(own: Push, given: Given) -> None:
    """Put a model on the Hugging Face hub, with a card that tells its data, recipe, figures and limits.

    MODEL is the folder of a run (the card then tells its recipe and the evaluations that lie in it) or of a saved model.
    REPOSITORY is made where it does not exist. Pushed are weights, config and card, in one commit, with the token of
    `hf auth login` or HF_TOKEN. Look at the card first: --dry-run needs no network.

    Examples:
        nonlocalseg push runs/mine somebody/streets --dry-run
        nonlocalseg push runs/mine somebody/streets --private
        nonlocalseg push runs/mine/best somebody/streets --licence cc-by-nc-4.0 --evaluation figures/camvid-test.json
    """
    from nonlocalseg.publishing.card import model_card, read_subject
    from nonlocalseg.publishing.pushing import push

    subject = read_subject(own.model, own.evaluation)
    if own.dry_run:
        show(model_card(subject, own.repository, own.licence))
        return
    address = push(subject, own.repository, private=own.private, licence=own.licence)
    output().print(f"pushed, with its card, to {address}")
