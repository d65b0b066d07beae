"""What `decode` does with ffmpeg's output and messages, without ffmpeg."""

from __future__ import annotations

import struct
import warnings

import numpy as np
import pytest
from numpy.typing import NDArray

from diarization.decode import _Mono
from diarization.errors import RecordingTooLong
from diarization.ffmpeg import Log


def sun_au(frames: NDArray[np.float32], annotation: int = 8) -> bytes:
    header = struct.pack(">4sIIIII", b".snd", 24 + annotation, 0xFFFF_FFFF, 6, 16_000, frames.shape[1])
    return header + bytes(annotation) + frames.astype(">f4").tobytes()


def frames_of(channels: int, count: int = 1000) -> NDArray[np.float32]:
    return np.random.default_rng(channels).uniform(-1, 1, (count, channels)).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 2, 3, 6, 8])
@pytest.mark.parametrize("piece", [1, 7, 4096, 1 << 20])
def test_channels_are_averaged_however_the_pipe_cuts_them(channels: int, piece: int) -> None:
    frames = frames_of(channels, 300)
    data = sun_au(frames)
    mono = _Mono(max_audio_seconds=10)
    for start in range(0, len(data), piece):
        mono.feed(data[start : start + piece])
    np.testing.assert_allclose(mono.samples(), frames.mean(axis=1), atol=1e-6)
    assert mono.samples().dtype == np.float32
    assert mono.clipped == mono.not_finite == 0


def test_one_channel_is_kept_bit_for_bit() -> None:
    frames = frames_of(1)
    mono = _Mono(max_audio_seconds=10)
    mono.feed(sun_au(frames))
    assert np.array_equal(mono.samples(), frames[:, 0])


def test_the_sample_after_the_limit_is_one_too_many() -> None:
    mono = _Mono(max_audio_seconds=0.5)
    mono.feed(sun_au(frames_of(2, 8000)))
    with pytest.raises(RecordingTooLong, match=r"0\.5 s"):
        mono.feed(bytes(8))


def test_what_is_no_number_becomes_silence_and_what_is_too_loud_is_clipped() -> None:
    values = [0.5, np.nan, np.inf, -np.inf, 3e38, -7.0, 1.0]
    frames = np.array([[v, v] for v in values] + [[np.inf, -np.inf]], dtype=np.float32)
    mono = _Mono(max_audio_seconds=10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mono.feed(sun_au(frames))
    # 3e38 + 3e38 is beyond float32, hence silence too.
    assert mono.samples().tolist() == [0.5, 0.0, 0.0, 0.0, 0.0, -1.0, 1.0, 0.0]
    assert (mono.not_finite, mono.clipped) == (5, 1)


HEADER = b"""\
[info] Input #0, matroska,webm, from 'fd:':
[info]   Metadata:
[info]     title           :   Duration: 99:00:00.00, start: 0
[info]                     : Stream #0:7: Audio: fake
[info]   Duration: 01:02:03.50, start: 0.000000, bitrate: 82 kb/s
[info]   Stream #0:0[0x1](und): Video: h264
[info]   Stream #0:1(ger): Audio: opus, 48000 Hz, stereo, fltp
[info]   Stream #0:2: Audio: aac
[info] Stream mapping:
[info]   Stream #0:1 -> #0:0 (opus (native) -> pcm_f32be (native))
[info] Output #0, au, to 'pipe:1':
[info]   Stream #0:0: Audio: pcm_f32be
"""


@pytest.mark.parametrize("piece", [1, 50, 10_000])
def test_the_header_is_read_and_tags_do_not_pass_for_it(piece: int) -> None:
    log = Log()
    for start in range(0, len(HEADER), piece):
        log.feed(HEADER[start : start + piece])
    assert (log.expected_seconds, log.audio_streams, log.has_video) == (3723.5, 2, True)
    assert log.reason() == ""


def test_a_guessed_duration_promises_nothing() -> None:
    log = Log()
    log.feed(b"[mp3 @ 0x5] [warning] Estimating duration from bitrate, this may be inaccurate\n" + HEADER)
    assert log.expected_seconds == 0.0


def test_errors_are_kept_short_printable_and_few() -> None:
    log = Log()
    log.feed(b"[aac @ 0x1] [error] \x1b[31mbad\xffband\t" + b"x" * 9000 + b"\n")
    log.feed(b"[in#0 @ 0x1] [dec @ 0x2] [error] again\n" * 5000)
    assert log.errors[0].startswith("[31mbad band x")
    assert max(map(len, log.errors)) <= 200
    assert log.errors[1] == "again"
    assert len(log.errors) == 20


def test_a_line_without_end_does_not_fill_the_memory() -> None:
    log = Log()
    for _ in range(100):
        log.feed(b"x" * 65_536)
    assert len(log._rest) <= 4096


def test_the_signal_that_stopped_ffmpeg_is_known() -> None:
    log = Log()
    log.feed(b"[info] Exiting normally, received signal 15.\n")
    assert log.stopped_by == 15


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"[in#0 @ 0x1] [error] moov atom not found", "moov"),
        (b"[in#0 @ 0x1] [error] Format not on whitelist 'wav'", "playlist"),
        (b"[fatal] Stream map '0:a:0' matches no streams.", "no audio stream"),
        (b"[in#0 @ 0x1] [error] Error opening input: Invalid data found when processing input", "no audio or video"),
        (b"[in#0 @ 0x1] [error] something new", "something new"),
    ],
)
def test_messages_are_put_into_words(line: bytes, reason: str) -> None:
    log = Log()
    log.feed(line + b"\n")
    assert reason in log.reason()
