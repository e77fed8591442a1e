"""`push_to_hub()`: a model with its card as a repository on the Hugging Face hub, in one commit."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from nonlocalseg.models.hub_client import hub_error
from nonlocalseg.models.pretrained import silence_of
from nonlocalseg.models.segmenter import Segmenter
from nonlocalseg.publishing.card import Subject, model_card, read_subject

CARD = "README.md"


def push_to_hub(
    model: Segmenter | str | Path,
    repository: str,
    *,
    private: bool = False,
    licence: str | None = None,
    evaluations: Sequence[str | Path] = (),
) -> str:
    """Upload a model as "owner/name", with a card, by the token of `hf auth login` or HF_TOKEN; returns its address.

    Repositories that do not exist are made. Nothing of the model's folder goes with it but weights, config and card.

    Args:
        model: a model, its folder, or the folder of a run, whose recipe and evaluations the card then tells.
        repository: "owner/name".
        private: where the repository is made: for nobody but its owner.
        licence: of the weights, as the hub spells licences, such as cc-by-4.0; see `model_card` for the default.
        evaluations: .json files of `evaluate`, of these weights, for the card.

    Raises ValueError for a model that was assembled by hand, for a name that none can have and for a public repository
    where a private one is wanted, PermissionError, FileNotFoundError or ConnectionError for what the hub does not do.
    """
    return push(read_subject(model, evaluations), repository, private=private, licence=licence)


def push(subject: Subject, repository: str, *, private: bool, licence: str | None) -> str:
    """See `push_to_hub`."""
    from huggingface_hub import CommitOperationAdd, HfApi, constants

    silence = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else silence_of(constants.ENDPOINT)
    if silence is not None:
        raise ConnectionError(f"{repository}: nothing was pushed, the hub is not asked or does not answer ({silence})")
    with tempfile.TemporaryDirectory() as folder:
        subject.model.save_pretrained(folder)
        (Path(folder) / CARD).write_text(model_card(subject, repository, licence), encoding="utf-8")
        files = sorted(Path(folder).iterdir())
        api, config = HfApi(), subject.config
        message = f"{config.model} on {config.backbone}, {len(config.classes)} classes"
        try:
            address = api.create_repo(repository, private=private, exist_ok=True)
            if private and not api.model_info(repository).private:
                raise ValueError(f"--private: {repository} exists, and everybody can see it; choose another name")
            parts = [CommitOperationAdd(path_in_repo=path.name, path_or_fileobj=str(path)) for path in files]
            api.create_commit(repository, parts, commit_message=message)
        except Exception as error:
            cure = "nothing was pushed, or not all of it; try again"
            raise hub_error(error, repository, None, cure) from error
    return str(address)
