"""What `submit` is given: URLs, files in the folder that workers read, and lists of them on standard input."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from diarization import canary
from diarization.errors import InvalidJob, PermanentError
from diarization.recording import SCHEMES
from tasks.job import JobRequest
from tasks.settings import Settings

STDIN = "-"
_URL = re.compile(rf"[A-Za-z][A-Za-z0-9+.-]*://|({'|'.join(SCHEMES)}):", re.IGNORECASE)


@dataclass(frozen=True)
class Given:
    """One recording, as it was named.

    Attributes:
        name: A URL, or the path of a file here.
        where: Which of several it is, such as `line 3`; empty for one that is alone.
    """

    name: str
    where: str = ""


def read_given(arguments: Sequence[str]) -> list[Given]:
    """The recordings that are named on the command line and, for a `-`, on standard input.

    Blank lines, and those that begin with `#`, are passed over.
    """
    found: list[Given] = []
    for place, argument in enumerate(arguments, 1):
        if argument == STDIN:
            found += _listed(_stdin())
        else:
            found.append(Given(argument, f"recording {place} of {len(arguments)}" if len(arguments) > 1 else ""))
    return found


def checked_urls(given: Iterable[Given], options: Mapping[str, Any], settings: Settings) -> list[str]:
    """The URL of each recording, which can be submitted with these options: all of them, or none.

    Raises:
        InvalidJob: An option makes no sense, or a file is not where workers read; the message says which line it was.
        UrlNotAllowed: No recording can have one of these URLs; likewise.
    """
    JobRequest.check({"url": canary.URL, **options})  # what is wrong with an option is no matter of a line's
    urls = []
    for one in given:
        try:
            url = one.name if _URL.match(one.name) else file_url(one.name, settings.diarization_recordings_dir)
            JobRequest.check({"url": url, **options}).queue(settings.overflow_reachable_networks)
        except PermanentError as error:
            if not one.where:
                raise
            raise type(error)(f"{one.where}: {error.message}; nothing was submitted") from None
        urls.append(url)
    return urls


def file_url(name: str, folder: Path | None) -> str:
    """The file:// URL by which workers find a file of this host in the folder that they share with it.

    Workers resolve links and refuse what lies outside (`diarization.download`); so does this.

    Args:
        name: The file's path; one that is relative begins at the current folder.
        folder: DIARIZATION_RECORDINGS_DIR.

    Raises:
        InvalidJob: There is no such file, it lies elsewhere, or there is no such folder.
    """
    try:
        path, shown = Path(name).resolve(), _shown(name)
        if not path.exists():
            raise InvalidJob(f"{shown} is no URL, as https://host/meeting.mp3 is one, and no file here")
        if not path.is_file():
            raise InvalidJob(f"{shown} is no file: name recordings, such as {Path(shown) / '*.wav'}")
        if folder is None:
            raise InvalidJob(
                f"{shown} is a file of this host: set DIARIZATION_RECORDINGS_DIR, here and for the workers, to a "
                "folder that they share, and put it there; or give its URL"
            )
        if not path.is_relative_to(folder.resolve()):
            raise InvalidJob(
                f"{shown} lies outside {folder}, the folder of DIARIZATION_RECORDINGS_DIR, which is all that workers "
                "read: copy it there"
            )
    except (OSError, RuntimeError, ValueError):  # a loop of links, a NUL in the name, a folder that may not be read
        raise InvalidJob(
            "neither a URL, as https://host/meeting.mp3 is one, nor a file that can be read here"
        ) from None
    # As the setting has it: where the folder is mounted is the same for workers, where its links lead may not be.
    return "file://" + quote(os.fsencode(folder.absolute() / path.relative_to(folder.resolve())))


def _shown(name: str) -> str:
    """What of it an error may repeat: it may be a URL whose beginning got lost, with a signature or a password."""
    return "this" if set(name) & set("?#@") else name


def _stdin() -> Iterable[str]:
    if sys.stdin and sys.stdin.isatty():
        sys.stderr.write("recordings, one a line; Ctrl-D ends the list\n")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # file names may be in any encoding
    return sys.stdin or ()  # none where it is closed


def _listed(lines: Iterable[str]) -> Iterator[Given]:
    for number, line in enumerate(lines, 1):
        name = line.removeprefix("\ufeff").strip()
        if name and not name.startswith("#"):
            yield Given(name, f"line {number}")
