"""Files that people and attackers send as recordings, made on the spot, each with what must come of it."""

from __future__ import annotations

import os
import struct
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from diarization.errors import DiarizationError, RecordingNotFound, RecordingUndecodable
from diarization.ffmpeg import find_ffmpeg
from tests.processes import ROOT

SAMPLE = ROOT / "recordings" / "sample" / "sample.wav"
SAMPLE_SECONDS = 30.0


@dataclass(frozen=True)
class BadFile:
    """`make(path)` writes it. It must give `error`, or (None) be decoded; `says` stands in the error or a warning."""

    name: str
    make: Callable[[Path], object]
    error: type[DiarizationError] | None = RecordingUndecodable
    says: str = ""


def ffmpeg(*arguments: str | Path) -> None:
    """Run ffmpeg unbridled, to make a file."""
    subprocess.run([find_ffmpeg().path, "-nostdin", "-v", "error", "-y", *map(str, arguments)], check=True, timeout=60)


def encoded(path: Path, *arguments: str, suffix: str) -> bytes:
    """The sample recording in another format."""
    made = path.with_name(f"whole.{suffix}")
    ffmpeg("-i", SAMPLE, *arguments, made)
    return made.read_bytes()


def wav(data: bytes, *, tag: int = 1, channels: int = 1, rate: int = 16_000, bits: int = 16, size: int = -1) -> bytes:
    """A WAV file; `size` is what its headers claim, where not the truth."""
    size = len(data) if size < 0 else size
    block = channels * bits // 8
    form = struct.pack("<HHIIHH", tag, channels, rate, rate * block, block & 0xFFFF, bits)
    riff = struct.pack("<4sI4s4sI", b"RIFF", min(size + 36, 0xFFFF_FFFF), b"WAVE", b"fmt ", len(form))
    return riff + form + struct.pack("<4sI", b"data", size) + data


def _bytes(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def _sample(change: Callable[[bytes], bytes], *arguments: str, suffix: str) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(change(encoded(path, *arguments, suffix=suffix)))


def _half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes(byte ^ 0x5A for byte in content[middle : middle + 400]) + content[middle + 400 :]


def _without_pages(content: bytes) -> bytes:
    pages = content.split(b"OggS")
    return b"OggS".join(pages[: len(pages) // 2] + pages[len(pages) // 2 + 3 :])


def _floats(*values: float) -> bytes:
    return wav(struct.pack("<f", 0.25) * 16_000 + struct.pack(f"<{len(values)}f", *values), tag=3, bits=32)


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(SAMPLE, "sample.wav")


def _picture(path: Path) -> None:
    ffmpeg("-f", "lavfi", "-i", "testsrc=s=64x64:d=1", "-frames:v", "1", "-f", "image2", "-c:v", "png", path)


def _video(path: Path) -> None:
    ffmpeg("-f", "lavfi", "-i", "testsrc=s=64x64:d=2:r=5", "-f", "mp4", path)


def _two_streams(path: Path) -> None:
    ffmpeg("-i", SAMPLE, "-f", "lavfi", "-i", "sine=d=30", "-map", "0", "-map", "1", "-c:a", "aac", "-f", "mp4", path)


def _cover(path: Path) -> None:
    picture = path.with_name("cover.png")
    _picture(picture)
    ffmpeg("-i", SAMPLE, "-i", picture, "-map", "0", "-map", "1", "-disposition:v", "attached_pic", "-f", "mp3", path)


def _symlink(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


_ENCRYPT = ("-c:a", "aac", "-encryption_scheme", "cenc-aes-ctr", "-encryption_key", "0123456789abcdef" * 2)
_ENCRYPT += ("-encryption_kid", "fedcba9876543210" * 2)
_PDF = b"%PDF-1.7\n1 0 obj <<>> endobj\ntrailer <<>>\n%%EOF"
_MPD = b'<?xml version="1.0"?><MPD><Period><AdaptationSet><BaseURL>a.wav</BaseURL></AdaptationSet></Period></MPD>'
_SDP = b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n"
_SRT = b"1\n00:00:01,000 --> 00:00:02,000\nhello\n\n2\n00:00:03,000 --> 00:00:04,000\nthere\n"
_MIDI = b"MThd\0\0\0\6\0\0\0\1\0\x60MTrk\0\0\0\4\0\xff\x2f\0"
_SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="a.png"/></svg>'
_SILENCE = bytes(32_000)

BAD_FILES = (
    BadFile("missing", lambda path: None, RecordingNotFound, "No such file"),
    BadFile("dangling link", _symlink, RecordingNotFound, "No such file"),
    BadFile("folder", Path.mkdir, says="folder"),
    BadFile("fifo", os.mkfifo, says="not a regular file"),
    BadFile("empty", _bytes(b""), says="0 bytes"),
    BadFile("one byte", _bytes(b"R")),
    BadFile("text", _bytes(b"minutes of the meeting\n" * 50)),
    BadFile("web page", _bytes(b"\n<!DOCTYPE html><title>404</title>"), says="web page"),
    BadFile("web page with a byte order mark", _bytes(b"\xef\xbb\xbf<HTML><body>sign in</body>"), says="web page"),
    BadFile("error of a store", _bytes(b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'), says="XML"),
    BadFile("json", _bytes(b'{"error": "not found"}'), says="JSON"),
    BadFile("pdf", _bytes(_PDF), says="PDF"),
    BadFile("zip", _zip, says="zip"),
    BadFile("gzip", _bytes(b"\x1f\x8b\x08" + bytes(40)), says="gzip"),
    BadFile("picture", _picture, says="picture"),
    BadFile("jpeg", _bytes(b"\xff\xd8\xff\xe0" + bytes(40)), says="picture"),
    BadFile("svg", _bytes(_SVG)),
    BadFile("subtitles", _bytes(_SRT), says="not read"),
    BadFile("midi", _bytes(_MIDI)),
    BadFile("random bytes", _bytes(bytes((i * i * 7919 >> 5) & 0xFF for i in range(50_000)))),
    BadFile("zeros", _bytes(bytes(50_000))),
    BadFile("playlist", _bytes(b"#EXTM3U\n#EXTINF:9,\na.wav\n#EXT-X-ENDLIST\n"), says="playlist"),
    BadFile("concat script", _bytes(b"ffconcat version 1.0\nfile a.wav\n"), says="playlist"),
    BadFile("dash manifest", _bytes(_MPD), says="XML"),
    BadFile("session description", _bytes(_SDP)),
    BadFile("wav of 0 samples", _bytes(wav(b"")), says="0 samples"),
    BadFile("wav header cut off", _bytes(wav(_SILENCE)[:20])),
    BadFile("wav of 0 Hz", _bytes(wav(_SILENCE, rate=0))),
    BadFile("wav of 0 channels", _bytes(wav(_SILENCE, channels=0))),
    BadFile("wav of 65535 channels", _bytes(wav(_SILENCE, channels=65_535))),
    BadFile("wav of an unknown codec", _bytes(wav(_SILENCE, tag=0x9999)), says="codec is unknown"),
    BadFile("wav claiming 4 GB", _bytes(wav(_SILENCE, size=0xFFFF_FFFF)), None),
    BadFile("wav cut off", _sample(_half, suffix="wav"), None, "cut off"),
    BadFile("wav of not a number", _bytes(_floats(float("nan"), float("inf"))), None, "2 samples were no finite"),
    BadFile("wav of nothing but not a number", _bytes(wav(b"\0\0\xc0\x7f" * 99, tag=3, bits=32)), None, "99 samples"),
    BadFile("wav out of scale", _bytes(_floats(*[30_000.0] * 1000)), None, "exceed full scale"),
    BadFile("m4a without its index", _sample(_half, "-c:a", "aac", suffix="m4a"), says="moov"),
    BadFile("m4a cut off", _sample(_half, "-movflags", "faststart", suffix="m4a"), None, "promises 30.0 s"),
    BadFile("m4a encrypted", _sample(bytes, *_ENCRYPT, suffix="mp4"), says="encrypted"),
    BadFile("mp3 cut off", _sample(_half, suffix="mp3"), None, "promises 30"),
    BadFile("mp3 behind rubbish", _sample(lambda content: bytes(range(256)) * 8 + content, suffix="mp3"), None),
    BadFile("mp3 with a cover", _cover, None),
    BadFile("flac cut off", _sample(_half, suffix="flac"), None, "promises 30.0 s"),
    BadFile("flac with flipped bits", _sample(_flipped, suffix="flac"), None, "parts could not be decoded"),
    BadFile("ogg cut off", _sample(_half, suffix="ogg"), None, "cut off"),
    BadFile("ogg with missing pages", _sample(_without_pages, suffix="ogg"), None, "promises 30.0 s"),
    BadFile("ogg chained", _sample(lambda content: content * 2, suffix="ogg"), None),
    BadFile("webm cut off", _sample(_half, "-c:a", "libopus", suffix="webm"), None, "promises 30.0 s"),
    BadFile("video without sound", _video, says="video without an audio stream"),
    BadFile("two audio streams", _two_streams, None, "2 audio streams"),
)
