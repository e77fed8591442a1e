"""What is asked of the Hugging Face hub: a saved model, by name and revision; and what it answers instead, in one line."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from nonlocalseg.models.pretrained import silence_of
from nonlocalseg.models.storage import CONFIG, WEIGHTS, read_config

_INSTEAD = "or give the path of a model folder"


def fetch_model(given: str, revision: str | None = None) -> Path:
    """The folder of the hub's cache that holds config and weights of "owner/name", or "owner/name@revision".

    What is in the cache needs no network, and where the hub does not answer the cache must do. Raises what `hub_error`
    makes of the hub's answers, and `ValueError` for two revisions and for a config that is not ours.
    """
    from huggingface_hub import constants, snapshot_download

    name, _, within = given.partition("@")
    if within and revision not in (None, within):
        raise ValueError(f"revision: {given} names one already, and {revision} is another; give one of the two")
    silence = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else silence_of(constants.ENDPOINT)
    alone, wanted = silence is not None, revision or within or None
    try:
        # The config first: the weights of a name may be anything, and large.
        folder = Path(snapshot_download(name, revision=wanted, allow_patterns=[CONFIG], local_files_only=alone))
        if not (folder / CONFIG).is_file():
            raise FileNotFoundError(f"{given} has no {CONFIG} on the hub: it is no model of this library")
        read_config(folder)
        snapshot_download(name, revision=folder.name, allow_patterns=[CONFIG, WEIGHTS], local_files_only=alone)
    except Exception as error:
        raise hub_error(error, given, silence, f"try again, {_INSTEAD}") from error
    if not (folder / WEIGHTS).is_file():
        raise FileNotFoundError(f"{given} has no {WEIGHTS} on the hub: it is no model of this library")
    return folder


def hub_error(error: Exception, name: str, silence: str | None, cure: str) -> Exception:
    """An exception of huggingface_hub as one line for people; any other as it is.

    silence: why the hub is not asked. cure: what helps where nothing else is known.
    """
    from huggingface_hub import constants, errors

    bare, server = name.partition("@")[0], urlsplit(constants.ENDPOINT).netloc
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if isinstance(error, errors.HFValidationError):
        return ValueError(f"{name} cannot be a name on the hub; it is owner/name, of letters, digits, dots, - and _")
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        why = silence or f"{server}: {reason}"
        return ConnectionError(
            f"{name} is not in the cache {constants.HF_HUB_CACHE}, and the hub is not asked or does not answer ({why}): "
            f"fetch it once where there is a network, {_INSTEAD}"
        )
    if isinstance(error, errors.GatedRepoError):
        return PermissionError(
            f"{name}: its owners want their terms accepted first, on {constants.ENDPOINT}/{bare}, by the user whose token "
            "`hf auth login` or HF_TOKEN gives"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return FileNotFoundError(f"{name}: {server} has no such revision of it; give a branch, a tag or a commit")
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else 0
    if status == 403:
        return PermissionError(
            f"{name}: {server} does not allow it ({reason}); use a token that may, by `hf auth login` or HF_TOKEN"
        )
    if isinstance(error, errors.RepositoryNotFoundError) or status == 401:
        return FileNotFoundError(
            f"{name}: {server} has no such model, or it is private, or your token is not valid; check the name, "
            f"log in with `hf auth login` or set HF_TOKEN, {_INSTEAD}"
        )
    if isinstance(error, (ValueError, FileNotFoundError)) and not status:
        return error
    return ConnectionError(f"{name}: {server} failed ({reason}): {cure}")
