"""No job is taken before the model is loaded.

Each pool child loads its own model and says so by a file; the worker's main process, which takes the jobs, waits for
all of them. Files, because they work while Redis is down and across the spawn of a child.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from diarization.errors import DiarizationError, ModelUnavailable
from tasks.settings import Settings
from tasks.vitals import lives

EXIT_UNUSABLE = 78
"""EX_CONFIG of sysexits.h: started as it is, this worker can never work."""

_POLL_SECONDS = 0.1


def runtime_folder(settings: Settings) -> Path:
    """Where this user's workers on this machine keep small files, each in a folder of its own.

    Raises:
        ModelUnavailable: It cannot be made, or somebody else could write there, or lead what is written elsewhere.
    """
    base = settings.runtime_dir / f"diarize-queue-{os.getuid()}"
    try:
        base.mkdir(mode=0o700, exist_ok=True)
        found = base.lstat()
    except OSError as error:
        raise ModelUnavailable(f"{base} cannot be made: {error.strerror}; set QUEUE_RUNTIME_DIR") from None
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o077:
        raise ModelUnavailable(f"{base} is not this user's alone: remove it")
    return base


class Gate:
    """The files of one worker, told apart by the pid of its main process.

    Attributes:
        folder: Where they are.
    """

    def __init__(self, main_pid: int, settings: Settings) -> None:
        self.folder = runtime_folder(settings) / str(main_pid)
        self._device_lock = self.folder / "device.lock"

    def exists(self) -> bool:
        """Whether the main process is one that has prepared itself."""
        return self.folder.is_dir()

    def prepare(self) -> None:
        """Clear what workers that are dead have left, an earlier one of this pid among them."""
        for folder in self.folder.parent.iterdir():
            if folder.name.isdigit() and (folder == self.folder or not lives(int(folder.name))):
                shutil.rmtree(folder, ignore_errors=True)
        self.folder.mkdir(mode=0o700)

    def share_device(self) -> None:
        """The children compute one at a time, as with a GPU that they share; said before they start."""
        self._device_lock.touch(mode=0o600)

    @property
    def device_lock(self) -> Path | None:
        """The file that they lock to compute; None where each has what it needs."""
        return self._device_lock if self._device_lock.exists() else None

    def remove(self) -> None:
        """Leave nothing behind."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def open(self, about: Mapping[str, Any]) -> None:
        """This child can work; `about` its diarizer, for the main process, which has none."""
        self._write("ready", json.dumps(about))

    def about(self) -> dict[str, Any]:
        """What a child has said of its diarizer; they are all alike. Nothing before the first is ready."""
        for path in (*self.folder.glob("*.ready"), *self.folder.glob("*.lost")):
            with suppress(FileNotFoundError):  # a child beside this one has just lost its device, or regained it
                return dict(json.loads(path.read_text()))
        return {}

    def refuse(self, error: DiarizationError) -> None:
        """This child can never work."""
        self._write("failed", f"{error.code}: {error.message}. {error.advice}")

    def refusal(self) -> str | None:
        """Why a child cannot work; None as long as none has said so."""
        for path in self.folder.glob("*.failed"):
            return path.read_text()
        return None

    def is_open(self) -> bool:
        """Whether some child that lives can work."""
        return any(lives(int(path.stem)) for path in self.folder.glob("*.ready"))

    def lose(self) -> None:
        """This child's device has failed: it can do no more."""
        ready = self.folder / f"{os.getpid()}.ready"
        ready.rename(ready.with_suffix(".lost"))

    def has_lost(self) -> bool:
        """Whether a child's device has failed, and no child has done a job since."""
        return any(self.folder.glob("*.lost"))

    def regain(self) -> None:
        """The device works, in a child that has done a job."""
        for path in self.folder.glob("*.lost"):
            path.unlink(missing_ok=True)

    def wait(self, children: Callable[[], Iterable[Any]], timeout_seconds: float, check: Callable[[], None]) -> None:
        """Wait until every child is ready; `check` is called all the while and may raise.

        Raises:
            ModelUnavailable: A child said that it cannot work, died, or was not ready in time.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            check()
            refusal = self.refusal()
            if refusal is not None:
                raise ModelUnavailable(refusal)
            waiting = list(children())
            for child in waiting:
                if child.exitcode is not None:
                    raise ModelUnavailable(f"the process that loads the model died with exit code {child.exitcode}")
            if all((self.folder / f"{child.pid}.ready").exists() for child in waiting):
                return
            if time.monotonic() > deadline:
                raise ModelUnavailable(f"the model was not loaded within {timeout_seconds:g} s")
            time.sleep(_POLL_SECONDS)

    def _write(self, kind: str, text: str) -> None:
        part = self.folder / f"{os.getpid()}.part"
        part.write_text(text)
        part.rename(part.with_suffix(f".{kind}"))


def workers_here(settings: Settings) -> list[int]:
    """Main processes of this user's workers that live on this host, or in this container."""
    pids = [int(folder.name) for folder in runtime_folder(settings).glob("[0-9]*")]
    return sorted(pid for pid in pids if lives(pid))
