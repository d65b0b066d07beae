"""What it means when a pipeline cannot be loaded, and what to do about it: one line for each way."""

from __future__ import annotations

import re
from collections.abc import Iterator

from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from diarization.upstream import MissingDependency, WrongDependencyVersion

_REPOSITORY_IN_URL = re.compile(r"//[^/\s]+/(?P<name>[\w.-]+/[\w.-]+)/resolve/")
_QUERY = re.compile(r"\?\S*")

_IF_WITH_TOKEN = {True: "with the account that HF_TOKEN belongs to", False: "and set HF_TOKEN"}
_IF_HIDDEN_FROM_TOKEN = {True: "that the account of HF_TOKEN may read it", False: "set HF_TOKEN if it is private"}


def explain(error: BaseException, model: str, *, has_token: bool) -> str:
    """Why `model` cannot be loaded, for which repository, and what to do; no token and no URL's query in it."""
    links = list(_chain(error))
    cause = next((link for link in links if isinstance(link, HfHubHTTPError | OfflineModeIsEnabled)), error)
    name = repository(error) or model
    what = name if name == model else f"{name} (which {model} needs)"
    return _hub_failure(cause, name, what, has_token) or _other_failure(cause, model, what)


def repository(error: BaseException) -> str | None:
    """The hub repository that a failure is about, where it or one of its causes says so."""
    for link in _chain(error):
        if name := getattr(link, "repo_id", None):
            return str(name)
        request = getattr(link, "_request", None)  # of httpx: the public property raises where there is none
        if match := _REPOSITORY_IN_URL.search(f"{getattr(request, 'url', '')} {link}"):
            return match["name"]
    return None


def _hub_failure(cause: BaseException, name: str, what: str, has_token: bool) -> str | None:
    status = cause.response.status_code if isinstance(cause, HfHubHTTPError) else None
    match cause:
        case GatedRepoError():
            return f"{what} asks for consent: accept its terms at https://hf.co/{name} {_IF_WITH_TOKEN[has_token]}"
        case RevisionNotFoundError():
            return f"{what} has no such revision: see https://hf.co/{name}/commits/main"
        case RemoteEntryNotFoundError():
            return f"{what} lacks a file that a pyannote pipeline has: check DIARIZATION_MODEL"
        case RepositoryNotFoundError():
            do = _IF_HIDDEN_FROM_TOKEN[has_token]
            return f"there is no folder and no hub repository {what}, or it is hidden: check the spelling, and {do}"
        case OfflineModeIsEnabled():
            return f"{what} is not in the cache, and HF_HUB_OFFLINE forbids to fetch it: start once without"
        case HfHubHTTPError() if status == 401:
            return f"the hub refuses HF_TOKEN (401) for {what}: make a new one at https://hf.co/settings/tokens"
        case HfHubHTTPError() if status == 403:
            return (
                f"the hub does not let HF_TOKEN read {what} (403): a fine-grained token must be given read access to "
                "gated repositories at https://hf.co/settings/tokens"
            )
        case HfHubHTTPError():
            return f"the hub answered {status} for {what}: try again later, or set DIARIZATION_MODEL to a folder"
        case LocalEntryNotFoundError():
            return (
                f"the hub cannot be reached and {what} is not in the cache: check the network, or set "
                "DIARIZATION_MODEL to a folder"
            )
    return None


def _other_failure(cause: BaseException, model: str, what: str) -> str:
    match cause:
        case MissingDependency() | WrongDependencyVersion() | ImportError():
            return f"{model} needs what is not installed: {_first_line(cause)}"
        case FileNotFoundError():
            return f"{model} is not complete: {cause.filename or _first_line(cause)} is missing"
    return f"{what} cannot be loaded, a file may be damaged: {type(cause).__name__}: {_first_line(cause)}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first_line(error: BaseException) -> str:
    """Without what a URL carries in its query, which may be a signature."""
    lines = _QUERY.sub("", str(error)).strip().splitlines()
    return lines[0] if lines else "no reason given"
