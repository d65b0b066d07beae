"""A local file in, a mono 16 kHz waveform out.

ffmpeg writes float32 samples in all the recording's channels into a pipe; what is kept of them is their mean, which is
what stock pyannote hears. (ffmpeg's own way to mono weighs surround channels differently, and is 3 dB louder.)
Limits hold while samples arrive, so a small file that unpacks to a thousand hours costs no more than the limit.
"""

from __future__ import annotations

import math
import os
import selectors
import signal
import stat
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import numpy as np

from diarization.errors import DecoderStopped, RecordingNotFound, RecordingTooLong, RecordingUndecodable
from diarization.ffmpeg import ERROR_RATE_EXCEEDED, Log, find_ffmpeg, signal_name

if TYPE_CHECKING:
    from subprocess import Popen

    from numpy.typing import NDArray

SAMPLE_RATE: Final = 16_000
"""Hz; what the bundled models were trained on."""

STALL_TIMEOUT_SECONDS: Final = 120.0
"""ffmpeg gives samples hundreds of times faster than they play; after this long without one it hangs."""

# Encoders pad, containers round, and a video's picture may outlast its sound: less than this is no news.
_LENGTH_TOLERANCE_SECONDS: Final = 2.0
_LENGTH_TOLERANCE_SHARE: Final = 0.01
# Lossy codecs overshoot full scale now and then, unheard; a larger share means a wrong scale.
_CLIPPED_SHARE: Final = 0.001
_PROGRESS_SECONDS: Final = 1.0
_READ_BYTES: Final = 1024**2
_HEAD_BYTES: Final = 1024
_MAX_OGG_PAGE_BYTES: Final = 65_307  # RFC 3533, section 6
_UNKNOWN_RIFF_BYTES: Final = 0x7FFF_0000  # who writes to a pipe cannot know the size, and puts down the largest one
_STOP_SIGNALS: Final = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGKILL, signal.SIGTERM}

Report = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Waveform:
    """A decoded recording.

    Attributes:
        samples: Mono float32 in [-1, 1], shape (samples,): the mean over the recording's channels.
        warnings: What the caller should know, such as a file that was cut off.
        sample_rate: Hz.
    """

    samples: NDArray[np.float32]
    warnings: tuple[str, ...] = ()
    sample_rate: int = SAMPLE_RATE

    @property
    def seconds(self) -> float:
        """Length of the recording."""
        return len(self.samples) / self.sample_rate


def decode(
    path: Path, *, max_audio_seconds: float, report: Report, stall_timeout_seconds: float = STALL_TIMEOUT_SECONDS
) -> Waveform:
    """The sound of a local file. Its content says what it is; its name does not matter.

    Of several audio streams the first is taken. Gaps in a container's time stamps are not filled.

    Args:
        path: A regular file.
        max_audio_seconds: More audio is refused as soon as its first sample arrives, whatever a header says.
        report: Called about once a second with ("decode", seconds decoded, seconds expected or 0).
        stall_timeout_seconds: ffmpeg is given up after this long without a sample.

    Raises:
        RecordingNotFound: There is no such file, or it cannot be opened.
        RecordingUndecodable: Not audio that ffmpeg can read, or none in it.
        RecordingTooLong: More than `max_audio_seconds`.
        DecoderUnavailable: This machine has no ffmpeg that can be used.
        DecoderStopped: ffmpeg was stopped from outside.
        Cancelled: Raised by `report`.
    """
    with _open(path) as file:
        head = os.pread(file.fileno(), _HEAD_BYTES, 0)
        log, mono = Log(), _Mono(max_audio_seconds)
        # Decoding takes about a 500th of the playing time; what needs a tenth was made to keep a worker busy.
        cpu_seconds = 60 + int(max_audio_seconds / 10)
        with find_ffmpeg().run(file, sample_rate=SAMPLE_RATE, cpu_seconds=cpu_seconds) as process:
            _pump(process, log, mono, report, stall_timeout_seconds)
            status = process.wait()
        _check_end(status, log, mono.seconds)
        if not mono.seconds:
            raise RecordingUndecodable(_why_nothing(head, log))
        return Waveform(mono.samples(), _warnings(status, log, mono, _is_cut_off(head, file)))


def _open(path: Path) -> IO[bytes]:
    try:
        # Non-blocking, because opening a FIFO waits for a writer.
        file = open(path, "rb", buffering=0, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
    except IsADirectoryError:
        raise RecordingUndecodable("the recording is a folder, not a file") from None
    except OSError as error:
        raise RecordingNotFound(f"the recording's file cannot be opened: {error.strerror}") from None
    status = os.fstat(file.fileno())
    if stat.S_ISREG(status.st_mode) and status.st_size:
        return file
    file.close()
    empty = stat.S_ISREG(status.st_mode)
    raise RecordingUndecodable("the recording is empty (0 bytes)" if empty else "the recording is not a regular file")


class _Mono:
    """Takes Sun AU as ffmpeg writes it, and keeps the mean of its channels.

    The samples stand in one growing buffer, which the kernel moves without a copy once it is large: 230 MB an hour.
    """

    def __init__(self, max_audio_seconds: float) -> None:
        self._max_audio_seconds = max_audio_seconds
        self._max_bytes = math.floor(max_audio_seconds * SAMPLE_RATE) * 4
        self._buffer = bytearray()
        self._pending = b""
        self._channels = 0
        self.not_finite = 0
        self.clipped = 0

    @property
    def seconds(self) -> float:
        """How much has arrived."""
        return len(self._buffer) / 4 / SAMPLE_RATE

    def samples(self) -> NDArray[np.float32]:
        """All of it, without a copy, shape (samples,)."""
        return np.frombuffer(self._buffer, dtype=np.float32)

    def feed(self, data: bytes) -> None:
        """Take more bytes; they may end within a sample.

        Raises:
            RecordingTooLong: One sample more than the limit.
        """
        data = self._pending + data
        if not self._channels:
            if len(data) < 24 or len(data) < (start := struct.unpack_from(">I", data, 4)[0]):
                self._pending = data
                return
            self._channels = struct.unpack_from(">I", data, 20)[0]
            data = data[start:]
        whole = len(data) - len(data) % (4 * self._channels)
        self._pending = data[whole:]
        self._append(np.frombuffer(data[:whole], dtype=">f4").reshape(-1, self._channels))
        if len(self._buffer) > self._max_bytes:
            raise RecordingTooLong(f"the recording is longer than {self._max_audio_seconds:g} s, which is the limit")

    def _append(self, frames: NDArray[np.float32]) -> None:
        with np.errstate(all="ignore"):  # a float recording may hold anything; what is wrong is counted below
            mono = frames[:, 0].astype(np.float32)
            for channel in range(1, self._channels):
                mono += frames[:, channel]
            mono /= self._channels
        finite = np.isfinite(mono)
        if not finite.all():
            self.not_finite += int(mono.size - np.count_nonzero(finite))
            mono[~finite] = 0.0
        self.clipped += int(np.count_nonzero(np.abs(mono) > 1.0))
        np.clip(mono, -1.0, 1.0, out=mono)
        self._buffer += mono.data


def _pump(process: Popen[bytes], log: Log, mono: _Mono, report: Report, stall_timeout_seconds: float) -> None:
    """Read both of ffmpeg's pipes to their ends, and tell of progress."""
    assert process.stdout is not None
    assert process.stderr is not None
    last_sample = last_report = time.monotonic()
    report("decode", 0, 0)
    with selectors.DefaultSelector() as pipes:
        pipes.register(process.stdout, selectors.EVENT_READ, mono.feed)
        pipes.register(process.stderr, selectors.EVENT_READ, log.feed)
        while pipes.get_map():
            for key, _ in pipes.select(timeout=_PROGRESS_SECONDS):
                data = os.read(key.fd, _READ_BYTES)
                if not data:
                    pipes.unregister(key.fileobj)
                elif key.fileobj is process.stdout:
                    last_sample = time.monotonic()
                key.data(data)
            now = time.monotonic()
            if now - last_sample > stall_timeout_seconds:
                raise RecordingUndecodable(
                    f"ffmpeg hangs: no sample for {stall_timeout_seconds:g} s, after {mono.seconds:.1f} s of audio"
                )
            if now - last_report >= _PROGRESS_SECONDS:
                report("decode", int(mono.seconds), math.ceil(log.expected_seconds))
                last_report = now
    report("decode", int(mono.seconds), int(mono.seconds))


def _check_end(status: int, log: Log, seconds: float) -> None:
    """Refuse what a broken ffmpeg left behind: it looks like a shorter recording."""
    number = log.stopped_by or max(-status, 0)
    if number in _STOP_SIGNALS:
        raise DecoderStopped(f"ffmpeg was stopped by {signal_name(number)} after {seconds:.1f} s of audio")
    if status == ERROR_RATE_EXCEEDED:
        raise RecordingUndecodable("more than two thirds of the audio could not be decoded: it is damaged or encrypted")
    if number == signal.SIGXCPU:
        raise RecordingUndecodable(f"ffmpeg used up its processor time, after {seconds:.1f} s of audio")
    if number:
        raise RecordingUndecodable(f"ffmpeg crashed on it ({signal_name(number)}), after {seconds:.1f} s of audio")


_MISTAKEN: Final[tuple[tuple[bytes, str], ...]] = (
    (b"<!doctype html", "a web page"),
    (b"<html", "a web page"),
    (b"<head", "a web page"),
    (b"<?xml", "an XML document"),
    (b"<error", "an XML document"),
    (b"{", "a JSON document"),
    (b"#extm3u", "a playlist"),
    (b"[playlist]", "a playlist"),
    (b"ffconcat", "a playlist"),
    (b"%pdf", "a PDF"),
    (b"pk\x03\x04", "a zip archive or an office document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\xff\xd8\xff", "a picture"),
    (b"\x89png", "a picture"),
    (b"gif8", "a picture"),
)


def _why_nothing(head: bytes, log: Log) -> str:
    """One line on a file that gave no sample."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for signature, kind in _MISTAKEN:
        if start.startswith(signature):
            return f"the file looks like {kind}, not a recording"
    if log.has_video and not log.audio_streams:
        return "the file is a video without an audio stream"
    reason = log.reason()
    return f"the file cannot be decoded: {reason}" if reason else "the recording holds no audio: 0 samples"


def _is_cut_off(head: bytes, file: IO[bytes]) -> bool:
    """Whether the file ends early in a way that ffmpeg keeps quiet about: it takes such files as they are."""
    file_bytes = os.fstat(file.fileno()).st_size
    if head[:4] == b"RIFF" and len(head) >= 8:  # WAV, AVI: the header says how many bytes follow
        promised = int(struct.unpack_from("<I", head, 4)[0]) + 8
        return file_bytes < promised < _UNKNOWN_RIFF_BYTES
    if head[:4] == b"OggS":  # the last page of a stream is marked (RFC 3533, section 6)
        tail = os.pread(file.fileno(), _MAX_OGG_PAGE_BYTES, max(0, file_bytes - _MAX_OGG_PAGE_BYTES))
        flags = tail[tail.rfind(b"OggS") :][5:6]
        return bool(flags) and not flags[0] & 0x04
    return False


def _warnings(status: int, log: Log, mono: _Mono, is_cut_off: bool) -> tuple[str, ...]:
    found = []
    if log.audio_streams > 1:
        found.append(f"the recording has {log.audio_streams} audio streams; the first one was used")
    tolerance = max(_LENGTH_TOLERANCE_SECONDS, _LENGTH_TOLERANCE_SHARE * log.expected_seconds)
    if log.expected_seconds - mono.seconds > tolerance:
        expected, got = log.expected_seconds, mono.seconds
        found.append(f"{got:.1f} s of audio were decoded where the file promises {expected:.1f} s: it may be cut off")
    elif is_cut_off:
        found.append(f"the file is cut off, after {mono.seconds:.1f} s of audio")
    if log.errors or status:
        complaint = log.errors[0] if log.errors else f"exit status {status}"
        found.append(f"parts could not be decoded; ffmpeg's first complaint: {complaint}")
    if mono.not_finite:
        found.append(f"{mono.not_finite} samples were no finite numbers and were set to 0")
    if mono.clipped > _CLIPPED_SHARE * mono.seconds * SAMPLE_RATE:
        share = 100 * mono.clipped / (mono.seconds * SAMPLE_RATE)
        found.append(f"{share:.1f} % of the samples exceed full scale and were clipped")
    return tuple(found)
