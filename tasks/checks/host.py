"""What a worker's host must have, beside a GPU."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile

from diarization.errors import DecoderUnavailable, ModelUnavailable
from diarization.ffmpeg import find_ffmpeg
from diarization.memory import available_bytes, needed_bytes
from tasks.checks.finding import GPU, WORKERS, Check, Fault, Finding, Role, Subject, counted, fine, risk
from tasks.gate import runtime_folder, workers_here
from tasks.gpu_seat import processes_of_worker

MODEL_BYTES = 1_100_000_000
"""What a worker's process holds with its model loaded: docs/speed.md, `make bench-memory`."""
ORDINARY_HOURS = 1.0

NO_FFMPEG = Fault(
    "no_ffmpeg",
    "there is no ffmpeg of 6.0 or later; no recording can be decoded",
    "install ffmpeg 6.0 or later, or the worker extra, which brings one: pip install 'diarize-queue[worker]'",
)
NO_TEMP = Fault(
    "no_temp",
    "the temporary directory cannot be written to; no worker starts",
    "free space there, or point TMPDIR to where this user may write; a read-only container needs --tmpfs /tmp",
)
SMALL_TEMP = risk(
    "small_temp",
    "the largest recording does not fit the temporary directory: its job would end as disk_full",
    "free space there, point TMPDIR elsewhere, or lower DIARIZATION_MAX_BYTES",
)
LITTLE_MEMORY = Fault(
    "little_memory",
    "a worker's models and a recording of one hour do not fit: workers are killed, jobs wait for room",
    "give the host or the container more memory, or run fewer workers on it",
)
SHORT_OF_MEMORY = risk(
    "short_of_memory",
    "the longest recording that is allowed does not fit: its job would wait for another worker",
    "give the host more memory, or lower DIARIZATION_MAX_HOURS",
)
NO_RECORDINGS = Fault(
    "no_recordings",
    "the folder of file:// recordings cannot be read",
    "mount the producers' volume at DIARIZATION_RECORDINGS_DIR, readable for this user",
)


def ffmpeg(_: Subject) -> Finding:
    """The one that a worker takes."""
    try:
        found = find_ffmpeg()
    except DecoderUnavailable as error:
        return NO_FFMPEG.found(str(error))
    shown = subprocess.run([found.path, "-version"], capture_output=True, text=True, timeout=10, check=False).stdout
    words = shown.split(maxsplit=3)
    number = words[2] if len(words) > 2 else "of an unknown version"
    return fine(f"{found.path}, version {number}, resampler {found.resampler}")


def temp(subject: Subject) -> Finding:
    """Whether recordings fit the temporary directory, and a worker's own files may stand there."""
    try:
        folder = tempfile.gettempdir()
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0")
        runtime_folder(subject.settings)
    except OSError as error:
        return NO_TEMP.found(str(error))
    except ModelUnavailable as error:
        return NO_TEMP.found(str(error))
    free, largest = shutil.disk_usage(folder).free, subject.settings.diarization_max_bytes
    says = f"{folder}: {free / 1e9:.1f} GB free"
    if subject.role is Role.GPU and free < largest:
        return SMALL_TEMP.found(f"{says}, DIARIZATION_MAX_BYTES is {largest / 1e9:.1f} GB")
    return fine(says)


def memory(subject: Subject) -> Finding:
    """Whether the model and a recording fit."""
    free, hours = available_bytes(), subject.settings.diarization_max_hours
    running = workers_here(subject.settings)
    if running:
        who, held = "its next job", 0
    else:
        who, held = "a worker", processes_of_worker(subject.settings) * MODEL_BYTES
    ordinary = held + needed_bytes(min(hours, ORDINARY_HOURS) * 3600)
    longest = held + needed_bytes(hours * 3600)
    says = f"{free / 1e9:.1f} GB free" + (f" beside {counted(len(running), 'worker')}" if running else "")
    if free < ordinary:
        return LITTLE_MEMORY.found(f"{says}; {who} takes {ordinary / 1e9:.1f} GB for an hour of recording")
    if free < longest:
        return SHORT_OF_MEMORY.found(f"{says}; {who} takes {longest / 1e9:.1f} GB for {hours:g} hours of recording")
    return fine(f"{says}; {who} takes up to {longest / 1e9:.1f} GB ({hours:g} hours of recording)")


def recordings(subject: Subject) -> Finding:
    """The folder that file:// URLs may point into."""
    folder = subject.settings.diarization_recordings_dir
    if folder is None:
        return fine("no DIARIZATION_RECORDINGS_DIR: file:// URLs are refused")
    if not folder.is_dir() or not os.access(folder, os.R_OK | os.X_OK):
        return NO_RECORDINGS.found(f"{folder} is no folder that this user may read")
    return fine(str(folder))


CHECKS = (
    Check("host", "temp", "the temporary directory", temp, (NO_TEMP, SMALL_TEMP), WORKERS),
    Check("host", "room", "memory beside what jobs take", memory, (LITTLE_MEMORY, SHORT_OF_MEMORY), GPU),
    Check("host", "ffmpeg", "the ffmpeg that a worker takes", ffmpeg, (NO_FFMPEG,), GPU),
    Check("host", "recordings", "DIARIZATION_RECORDINGS_DIR", recordings, (NO_RECORDINGS,), GPU),
)
