"""ffmpeg in a process of its own, trusted with nothing.

ffmpeg reads what strangers wrote, so it gets as little as it needs: one open file and no path, no protocol but that
descriptor, no demuxer that reads other files (playlists, concat scripts, image sequences), an empty environment, no
right to write a file, and limits on its memory and processor time.
"""

from __future__ import annotations

import re
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import IO, TYPE_CHECKING, Final

from diarization.errors import DecoderUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_FFMPEG_BYTES: Final = 4 * 1024**3
"""Of address space. ffmpeg takes some 60 MB of memory; the index of a ten-hour video may add 100 MB."""

DEMUXERS: Final = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dsf,dss,dts,eac3,flac,flv,gsm,loas,matroska,mov,mp3,mpc,mpc8,"
    "mpeg,mpegts,mxf,nistsphere,nut,ogg,oma,qcp,rm,tak,tta,voc,w64,wav,wv"
)
"""Self-contained ones alone: none opens a second file or a URL (mov could, by `enable_drefs`, which is off)."""

# swr's default filter is 3 dB down at 7.5 kHz and lets 8.1 kHz through at -13 dB; with these it is -0.1 and -80 dB.
# soxr does better still (-0.4 and -140 dB) in half the time, but not every ffmpeg has it.
_RESAMPLERS: Final = {"soxr": "resampler=soxr", "swr": "filter_size=128:cutoff=0.97"}

_MAX_LINE_BYTES: Final = 4096
_MAX_ERRORS: Final = 20

ERROR_RATE_EXCEEDED: Final = 69
"""ffmpeg's exit status when more than two thirds of the audio could not be decoded."""


@dataclass(frozen=True)
class Ffmpeg:
    """An executable that can be held to one file.

    Attributes:
        path: Where it is.
        resampler: `soxr` where it was built in, else ffmpeg's own `swr`.
    """

    path: str
    resampler: str

    def command(self, sample_rate: int) -> list[str]:
        """Its arguments: from standard input (a seekable file) to Sun AU, float32, all channels, on standard output.

        AU has a header of a few bytes that says the number of channels, and no limit on length.
        """
        return [
            *(self.path, "-nostdin", "-hide_banner", "-nostats", "-loglevel", "level+info", "-threads", "1"),
            *("-protocol_whitelist", "fd", "-format_whitelist", DEMUXERS, "-i", "fd:"),
            *("-map", "0:a:0", "-map_metadata", "-1", "-map_chapters", "-1", "-filter_threads", "1"),
            # Samples are numbered anew: time stamps that jump back (chained Ogg) would count as errors of the output.
            *("-af", f"aresample={sample_rate}:{_RESAMPLERS[self.resampler]},asetpts=N/SR/TB"),
            # Written by 32 KB instead of by packet: with small ones the reader spends four times as long.
            *("-c:a", "pcm_f32be", "-flush_packets", "0", "-f", "au", "pipe:1"),
        ]

    @contextmanager
    def run(self, file: IO[bytes], *, sample_rate: int, cpu_seconds: int) -> Iterator[subprocess.Popen[bytes]]:
        """A process that decodes `file`; it is gone when the context ends.

        Should this process die without a word, ffmpeg's pipe breaks and it ends by itself, at the latest after
        `cpu_seconds`. (A death signal would need code between fork and exec, which is unsafe beside other threads.)

        Raises:
            DecoderUnavailable: The executable is gone.
        """
        try:
            # Of its own group, so that Ctrl-C at the worker's terminal leaves the job in hand alone.
            process = subprocess.Popen(
                self.command(sample_rate),
                stdin=file,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={},
                cwd="/",
                process_group=0,
            )
        except OSError as error:
            raise DecoderUnavailable(f"ffmpeg cannot be started: {error.strerror}") from None
        with process:
            try:
                _limit(process.pid, cpu_seconds)
                yield process
            finally:
                process.kill()


def _limit(pid: int, cpu_seconds: int) -> None:
    if sys.platform == "linux":  # elsewhere a process can limit only itself
        try:
            resource.prlimit(pid, resource.RLIMIT_AS, (MAX_FFMPEG_BYTES, MAX_FFMPEG_BYTES))
            resource.prlimit(pid, resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 5))
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, 0))
            resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))
        except ProcessLookupError:
            pass  # it is through already


@lru_cache(maxsize=1)
def find_ffmpeg() -> Ffmpeg:
    """The ffmpeg on PATH, else the one that imageio-ffmpeg brings; looked for once.

    One without the `fd:` protocol (before 6.0) is passed over: it would have to be let at every local file.

    Raises:
        DecoderUnavailable: Neither is there, or neither can be used.
    """
    for path in filter(None, (shutil.which("ffmpeg"), _bundled_ffmpeg())):
        ffmpeg = _inspect(path)
        if ffmpeg is not None:
            return ffmpeg
    raise DecoderUnavailable("no ffmpeg of version 6.0 or later was found, neither on PATH nor from imageio-ffmpeg")


def _bundled_ffmpeg() -> str | None:
    try:
        import imageio_ffmpeg  # noqa: PLC0415 - not needed where ffmpeg is on PATH

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        return None


def _inspect(path: str) -> Ffmpeg | None:
    """What the executable at `path` can do; None where it cannot be run or held to one file."""
    try:
        shown = subprocess.run(
            [path, "-protocols"], env={}, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    if b"fd" not in shown.stdout.split():
        return None
    return Ffmpeg(path=path, resampler="soxr" if b"--enable-libsoxr" in shown.stderr else "swr")


_ERROR: Final = re.compile(r"(?:\[[^\]]* @ [^\]]*\] )*\[(?:error|fatal|panic)\] (.+)")
_DURATION: Final = re.compile(r"\[info\]   Duration: (\d+):(\d\d):(\d\d(?:\.\d+)?)")
_AUDIO_STREAM: Final = re.compile(r"\[info\] +Stream #0:\d+\S*: Audio: ")
_VIDEO_STREAM: Final = re.compile(r"\[info\] +Stream #0:\d+\S*: Video: ")
_STOPPED: Final = re.compile(r"\[info\] Exiting normally, received signal (\d+)")
_MEANINGS: Final = (
    ("moov atom not found", "its index (the moov atom) is missing: it was cut off, or is still being written"),
    ("Format not on whitelist", "it is a playlist, a script or another format that is not read"),
    ("matches no streams", "it has no audio stream"),
    ("no decoder found", "its codec is unknown, or protected against copying"),
    ("Error opening input: Invalid data", "it is in no audio or video format that ffmpeg knows"),
    ("Cannot allocate memory", "ffmpeg needs more memory for it than it may have"),
)
_UNSPEAKABLE: Final = re.compile(r"[^\x20-\x7e]+")


@dataclass
class Log:
    """What ffmpeg's standard error says, kept in bounded space.

    Attributes:
        expected_seconds: Length by the file's own header; 0 where it has none or ffmpeg only guesses.
        audio_streams: How many there are.
        has_video: Whether there is a picture.
        errors: The first few error messages.
        stopped_by: The signal that made ffmpeg end early, 0 for none.
    """

    expected_seconds: float = 0.0
    audio_streams: int = 0
    has_video: bool = False
    errors: list[str] = field(default_factory=list)
    stopped_by: int = 0
    _in_header: bool = True
    _guessed: bool = False
    _rest: bytes = b""

    def feed(self, data: bytes) -> None:
        """Read on; `data` may end within a line."""
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[:_MAX_LINE_BYTES]
        for line in lines:
            self._read(line[:_MAX_LINE_BYTES].decode("utf-8", "replace"))

    def _read(self, line: str) -> None:
        if error := _ERROR.match(line):
            if len(self.errors) < _MAX_ERRORS:
                self.errors.append(_UNSPEAKABLE.sub(" ", error[1])[:200].strip())
        elif stopped := _STOPPED.match(line):
            self.stopped_by = int(stopped[1])
        elif self._in_header:
            self._read_header(line)

    def _read_header(self, line: str) -> None:
        # A tag of the file cannot pass for one of these lines: ffmpeg indents tags further and puts their name first.
        self._in_header = not line.startswith(("[info] Stream mapping:", "[info] Output #0"))
        self._guessed |= "Estimating duration from bitrate" in line
        self.audio_streams += bool(_AUDIO_STREAM.match(line))
        self.has_video |= bool(_VIDEO_STREAM.match(line))
        if not self._guessed and (duration := _DURATION.match(line)):
            self.expected_seconds = int(duration[1]) * 3600 + int(duration[2]) * 60 + float(duration[3])

    def reason(self) -> str:
        """Why there is nothing to decode, in a few words; empty where ffmpeg met no error."""
        for error in self.errors:
            for text, meaning in _MEANINGS:
                if text in error:
                    return meaning
        if not self.errors:
            return ""
        return f"its audio is damaged or encrypted ({self.errors[0]})" if self.audio_streams else self.errors[0]


def signal_name(number: int) -> str:
    """`SIGKILL` for 9."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
