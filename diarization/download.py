"""A recording's URL to a local file, which is gone when it is no longer needed, whatever happens."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote_to_bytes

from diarization import canary
from diarization.addresses import Network
from diarization.errors import (
    DiskFull,
    RecordingFetchFailed,
    RecordingForbidden,
    RecordingNotFound,
    RecordingTooLarge,
    UrlNotAllowed,
)
from diarization.fetch import STAGE, Clock, Report, fetch
from diarization.recording import BUNDLED_SCHEME, Recording, parse_url

BUNDLED = {canary.NAME: canary.CLIP}
"""What comes along, by name."""

_PREFIX = "diarize-recording-"
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_SUCH_FILE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})
_NO_ACCESS = frozenset({errno.EACCES, errno.EPERM})


@contextlib.contextmanager
def download(
    recording: Recording,
    directory: Path | None = None,
    *,
    allowed_networks: Iterable[Network] = (),
    recordings_dir: Path | None = None,
    max_bytes: int,
    timeout_seconds: float,
    stall_timeout_seconds: float,
    report: Report,
) -> Iterator[Path]:
    """The recording as a local file, for as long as the context lasts.

    An http or https URL is fetched into a temporary file (no suffix, readable by its owner alone), which is gone when
    the context ends, whatever ended it; what a kill -9 leaves behind, `sweep_leftovers` removes. A file URL gives the
    file where it lies, so whoever can write to `recordings_dir` is trusted not to swap it meanwhile; `bundled:` and a
    name gives one of `BUNDLED`. An empty file, or one that is no audio, is left to decoding.

    Args:
        recording: What to fetch, with the headers to send.
        directory: Where the temporary file is made; None is the system's choice.
        allowed_networks: May be fetched from though they are not public.
        recordings_dir: File URLs below it are read (links resolved); none where it is None.
        max_bytes: A larger recording is refused.
        timeout_seconds: For the whole download.
        stall_timeout_seconds: For the connection, for the answer's head, and between two bytes of its body.
        report: Hears `("download", bytes done, bytes in all or 0)` at least every second; may raise to stop.

    Yields:
        Path of the local file.

    Raises:
        UrlNotAllowed: The URL, or a redirect, leads where recordings may not be fetched from.
        InvalidJob: A header of the recording cannot be sent.
        RecordingNotFound: HTTP 404 or 410; no such host; no such file.
        RecordingForbidden: HTTP 401, 403 or another refusal (4xx); a file that may not be read.
        RecordingTooLarge: More than `max_bytes`.
        RecordingUndecodable: The server sends a compressed form though asked not to.
        RecordingFetchFailed: Anything else between here and the server; it may work next time.
        DiskFull: No space for the temporary file.
    """
    parts = parse_url(recording.url)
    if parts.scheme == BUNDLED_SCHEME:
        yield _bundled(parts.path, report)
        return
    if parts.scheme == "file":
        path, size_bytes = _find(recording, recordings_dir, max_bytes)
        report(STAGE, size_bytes, size_bytes)
        yield path
        return
    clock = Clock(timeout_seconds, stall_timeout_seconds, report)
    with _temporary_file(directory) as (descriptor, path):

        def save(chunk: bytes) -> None:
            with _disk_errors():
                while chunk:
                    chunk = chunk[os.write(descriptor, chunk) :]

        fetch(recording, save, allowed_networks=allowed_networks, max_bytes=max_bytes, clock=clock)
        yield path


def sweep_leftovers(directory: Path | None = None) -> int:
    """Remove the temporary files of downloads whose process is dead; how many there were.

    A living download holds a lock on its file, which the kernel takes back however the process ends. So this may run
    beside other workers, in the same container or not.

    Args:
        directory: As for `download`.
    """
    swept = 0
    for path in Path(directory or tempfile.gettempdir()).glob(_PREFIX + "*"):
        with contextlib.suppress(OSError):  # in use, another user's, or gone by now
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
                swept += 1
            finally:
                os.close(descriptor)
    return swept


def _bundled(name: str, report: Report) -> Path:
    if name not in BUNDLED:
        raise RecordingNotFound(f"{BUNDLED_SCHEME}:{name}: none of that name comes along with this version")
    size_bytes = BUNDLED[name].stat().st_size
    report(STAGE, size_bytes, size_bytes)
    return BUNDLED[name]


def _find(recording: Recording, recordings_dir: Path | None, max_bytes: int) -> tuple[Path, int]:
    """The file that a file URL names, all links resolved, with its size in bytes."""
    if recordings_dir is None:
        raise UrlNotAllowed("file URLs are not read here: DIARIZATION_RECORDINGS_DIR is not set")
    name = unquote_to_bytes(parse_url(recording.url).path)
    if b"\0" in name:
        raise UrlNotAllowed("a file URL must not hold a NUL")
    try:
        path = Path(os.path.realpath(os.fsdecode(name)))
        # Told before anything is said of whether it exists.
        if not path.is_relative_to(recordings_dir.resolve()):
            raise UrlNotAllowed(f"{recording} is not below DIARIZATION_RECORDINGS_DIR")
        status = path.lstat()
    except OSError as error:
        raise _file_error(recording, error) from None
    if stat.S_ISLNK(status.st_mode):  # what is left of a loop of links
        raise RecordingNotFound(f"{recording}: {os.strerror(errno.ELOOP)}")
    if not stat.S_ISREG(status.st_mode):
        raise UrlNotAllowed(f"{recording} is not a regular file")
    if not os.access(path, os.R_OK):
        raise RecordingForbidden(f"the worker may not read {recording}")
    if status.st_size > max_bytes:
        raise RecordingTooLarge(f"{recording} has {status.st_size} bytes; at most {max_bytes} are allowed")
    return path, status.st_size


def _file_error(recording: Recording, error: OSError) -> Exception:
    message = f"{recording}: {error.strerror}"
    if error.errno in _NO_ACCESS:
        return RecordingForbidden(message)
    # A network volume that is gone for a moment, say, comes back.
    return RecordingNotFound(message) if error.errno in _NO_SUCH_FILE else RecordingFetchFailed(message)


@contextlib.contextmanager
def _temporary_file(directory: Path | None) -> Iterator[tuple[int, Path]]:
    """A file of ours with its descriptor, locked for as long as it is in use."""
    descriptor, path = _create_locked(directory)
    try:
        yield descriptor, path
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _create_locked(directory: Path | None) -> tuple[int, Path]:
    while True:
        with _disk_errors():
            descriptor, name = tempfile.mkstemp(prefix=_PREFIX, dir=directory)
        with contextlib.suppress(OSError):  # a file system without locks is never swept
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor, Path(name)
        # Between creation and lock, a sweep took it for a leftover.
        os.close(descriptor)


@contextlib.contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise DiskFull(f"no space for the recording's temporary file: {os.strerror(error.errno)}") from None
        raise
