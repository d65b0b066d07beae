"""Real files through the real ffmpeg."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from diarization.decode import Waveform, decode
from diarization.errors import (
    Cancelled,
    DecoderStopped,
    DecoderUnavailable,
    DiarizationError,
    RecordingTooLong,
    RecordingUndecodable,
)
from diarization.ffmpeg import Ffmpeg, find_ffmpeg
from tests.bad_files import BAD_FILES, SAMPLE, SAMPLE_SECONDS, BadFile, ffmpeg
from tests.processes import ROOT, wait_until
from tests.servers import Site, serve

Report = Callable[[str, int, int], None]


def quiet(stage: str, done: int, total: int) -> None:
    assert stage == "decode"


def decoded(path: Path, *, max_audio_seconds: float = 120.0, report: Report = quiet) -> Waveform:
    return decode(path, max_audio_seconds=max_audio_seconds, report=report, stall_timeout_seconds=20.0)


def children(pid: int) -> set[int]:
    """The processes that `pid` started and has not reaped."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.add(int(entry.parent.name))
    return found


@pytest.fixture(scope="module")
def original() -> NDArray[np.float32]:
    samples, rate = soundfile.read(SAMPLE, dtype="float32")
    assert rate == 16_000
    return np.asarray(samples)


@pytest.fixture(scope="module")
def hour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An hour of silence in a few hundred KB: unpacked, 230 MB."""
    path = tmp_path_factory.mktemp("decode") / "hour.flac"
    ffmpeg("-f", "lavfi", "-i", "anullsrc=r=8000:cl=mono", "-t", "3600", path)
    return path


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Every test ends with the processes and open files it began with."""
    processes, files = children(os.getpid()), len(list(Path("/proc/self/fd").iterdir()))
    yield
    assert children(os.getpid()) <= processes
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) <= files


# --- Good files ----------------------------------------------------------------------------------------------------


def test_a_16_khz_wav_is_what_soundfile_reads(original: NDArray[np.float32]) -> None:
    waveform = decoded(SAMPLE)
    assert np.array_equal(waveform.samples, original)
    assert (waveform.samples.dtype, waveform.samples.ndim) == (np.float32, 1)
    assert (waveform.seconds, waveform.sample_rate, waveform.warnings) == (SAMPLE_SECONDS, 16_000, ())


FORMATS: tuple[tuple[str, tuple[str, ...], float], ...] = (
    ("wav", ("-c:a", "pcm_u8"), 0.97),
    ("wav", ("-c:a", "pcm_s24le"), 0.9999),
    ("wav", ("-c:a", "pcm_s32le"), 0.9999),
    ("wav", ("-c:a", "pcm_f32le"), 0.9999),
    ("wav", ("-c:a", "pcm_f64le"), 0.9999),
    ("wav", ("-c:a", "pcm_alaw", "-ar", "8000"), 0.99),
    ("wav", ("-c:a", "pcm_mulaw", "-ar", "8000"), 0.99),
    ("wav", ("-c:a", "adpcm_ms"), 0.99),
    ("wav", ("-ar", "192000"), 0.999),
    ("wav", ("-rf64", "always"), 0.9999),
    ("wav", ("-af", "pan=octagonal|" + "|".join(f"c{i}=c0" for i in range(8))), 0.9999),
    ("w64", (), 0.9999),
    ("aiff", (), 0.9999),
    ("au", (), 0.9999),
    ("caf", (), 0.9999),
    ("flac", ("-ar", "44100"), 0.999),
    ("wv", (), 0.9999),
    ("tta", (), 0.9999),
    ("mp3", ("-ar", "44100", "-ac", "2", "-b:a", "128k"), 0.99),
    ("aac", (), 0.99),
    ("m4a", ("-c:a", "aac"), 0.99),
    ("m4a", ("-c:a", "alac"), 0.9999),
    ("mp4", ("-c:a", "aac", "-movflags", "frag_keyframe+empty_moov"), 0.99),
    ("mov", ("-c:a", "aac"), 0.99),
    ("ogg", ("-c:a", "libvorbis"), 0.99),
    ("ogg", ("-c:a", "flac"), 0.9999),
    ("opus", (), 0.99),
    ("webm", ("-c:a", "libopus"), 0.99),
    ("mka", ("-c:a", "aac"), 0.99),
    ("avi", ("-c:a", "mp3"), 0.99),
    ("flv", ("-c:a", "mp3", "-ar", "44100"), 0.99),
    ("ts", ("-c:a", "aac"), 0.99),
    ("mpg", ("-c:a", "mp2", "-ar", "44100"), 0.98),
    ("ac3", (), 0.99),
    ("wma", ("-c:a", "wmav2"), 0.99),
    ("amr", ("-ar", "8000", "-b:a", "12.2k"), 0.85),
    ("3gp", ("-c:a", "libopencore_amrnb", "-ar", "8000", "-b:a", "12.2k"), 0.85),
)


@pytest.mark.parametrize(
    ("suffix", "arguments", "likeness"), FORMATS, ids=[f"{row[0]} {' '.join(row[1])}".strip() for row in FORMATS]
)
def test_every_format_gives_the_sample_back(
    suffix: str, arguments: tuple[str, ...], likeness: float, tmp_path: Path, original: NDArray[np.float32]
) -> None:
    made = tmp_path / f"made.{suffix}"
    ffmpeg("-i", SAMPLE, *arguments, made)
    path = made.rename(tmp_path / "made.txt")  # the content decides, not the name
    waveform = decoded(path)
    assert waveform.seconds == pytest.approx(SAMPLE_SECONDS, abs=0.1)
    assert waveform.warnings == ()
    assert np.abs(waveform.samples).max() <= 1.0
    assert correlation(waveform.samples, original) > likeness


def correlation(samples: NDArray[np.float32], original: NDArray[np.float32]) -> float:
    """At the best delay up to 0.1 s: some formats do not say how many samples the encoder put in front."""
    size = 1 << 20
    products = np.fft.irfft(np.fft.rfft(samples, size) * np.conj(np.fft.rfft(original, size)))
    nearby = np.concatenate([products[:1600], products[-1600:]])
    return float(nearby.max() / (np.linalg.norm(samples) * np.linalg.norm(original)))


@pytest.mark.parametrize("video", ["mp4", "mov", "mkv"])
def test_a_video_gives_its_sound(video: str, tmp_path: Path, original: NDArray[np.float32]) -> None:
    path = tmp_path / f"video.{video}"
    ffmpeg("-f", "lavfi", "-i", "testsrc=s=64x64:r=5:d=30", "-i", SAMPLE, "-c:a", "aac", "-shortest", path)
    waveform = decoded(path)
    assert waveform.warnings == ()
    assert correlation(waveform.samples, original) > 0.99


@pytest.mark.parametrize("channels", [2, 3, 6, 8])
def test_mono_is_the_mean_over_all_channels(channels: int, tmp_path: Path) -> None:
    frames = np.random.default_rng(0).uniform(-1, 1, (16_000, channels)).astype(np.float32)
    frames[:100] = 1.0  # as loud as can be in each channel, and still not clipped
    soundfile.write(tmp_path / "a.wav", frames, 16_000, subtype="FLOAT")
    waveform = decoded(tmp_path / "a.wav")
    np.testing.assert_allclose(waveform.samples, frames.mean(axis=1), atol=1e-6)
    assert waveform.warnings == ()


@pytest.mark.parametrize("resampler", ["soxr", "swr"])
def test_resampling_keeps_speech_and_lets_no_alias_through(
    resampler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = Ffmpeg(path=find_ffmpeg().path, resampler=resampler)
    monkeypatch.setattr("diarization.decode.find_ffmpeg", lambda: chosen)
    time_seconds = np.arange(48_000 * 2) / 48_000
    heard = {}
    for frequency in (1_000, 7_000, 9_000, 20_000):
        tone = 0.5 * np.sin(2 * np.pi * frequency * time_seconds)
        soundfile.write(tmp_path / "tone.wav", tone, 48_000, subtype="FLOAT")
        samples = decoded(tmp_path / "tone.wav").samples
        assert len(samples) == 32_000
        heard[frequency] = float(np.sqrt(2 * np.mean(samples[8000:-8000] ** 2)) / 0.5)
    assert heard[1_000] == pytest.approx(1.0, abs=0.001)
    assert heard[7_000] == pytest.approx(1.0, abs=0.01)
    assert max(heard[9_000], heard[20_000]) < 1e-4


@pytest.mark.parametrize(
    "name", ["-y.wav", "-i", "http:__127.0.0.1", "concat:a|b", "%03d.wav", "pipe:0", "a\nb", "ä ☃"]
)
def test_a_name_is_only_a_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(SAMPLE.read_bytes())
    assert decoded(Path(name)).seconds == SAMPLE_SECONDS


# --- Bad files -----------------------------------------------------------------------------------------------------


def test_the_table_is_long_enough() -> None:
    assert len(BAD_FILES) >= 30
    assert len({bad.name for bad in BAD_FILES}) == len(BAD_FILES)


@pytest.mark.parametrize("bad", BAD_FILES, ids=lambda bad: bad.name)
def test_bad_file(bad: BadFile, tmp_path: Path) -> None:
    path = tmp_path / "recording.wav"
    bad.make(path)
    if bad.error is None:
        waveform = decoded(path)
        assert np.isfinite(waveform.samples).all()
        assert np.abs(waveform.samples).max() <= 1.0
        said = waveform.warnings
        assert any(bad.says in warning for warning in said) if bad.says else said == ()
    else:
        with pytest.raises(DiarizationError) as caught:
            decoded(path)
        assert type(caught.value) is bad.error
        assert bad.says in caught.value.message
        said = (caught.value.message,)
    for line in said:
        assert line.isprintable()
        assert not any(word in line for word in (str(tmp_path), "recording.wav", "fd:", " @ "))


# --- Limits --------------------------------------------------------------------------------------------------------


def test_the_length_limit_is_exact() -> None:
    assert decoded(SAMPLE, max_audio_seconds=SAMPLE_SECONDS).seconds == SAMPLE_SECONDS
    with pytest.raises(RecordingTooLong, match=r"29\.9999 s"):
        decoded(SAMPLE, max_audio_seconds=SAMPLE_SECONDS - 0.0001)


def test_a_bomb_costs_no_more_than_the_limit(hour: Path) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(RecordingTooLong):
            decoded(hour, max_audio_seconds=300.0)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1.5 * 300 * 16_000 * 4


def test_a_recording_is_held_once(hour: Path) -> None:
    tracemalloc.start()
    try:
        waveform = decoded(hour, max_audio_seconds=3600.0)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert waveform.seconds == 3600.0
    assert peak_bytes < 1.3 * waveform.samples.nbytes


@pytest.fixture
def ffmpeg_pid() -> Callable[[], int]:
    """Asks for the pid of the ffmpeg that has been started meanwhile; a server of other tests may be there, too."""
    others = children(os.getpid())

    def find() -> int:
        (pid,) = children(os.getpid()) - others
        return pid

    return find


def test_ffmpeg_knows_nothing_and_may_do_little(
    hour: Path, ffmpeg_pid: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    seen: dict[str, str] = {}

    def look(stage: str, done: int, total: int) -> None:
        if not seen:
            proc = Path(f"/proc/{ffmpeg_pid()}")
            seen.update({name: (proc / name).read_text() for name in ("environ", "cmdline", "limits")})

    decoded(hour, max_audio_seconds=3600.0, report=look)
    assert seen["environ"] == ""
    assert "hour" not in seen["cmdline"]
    limits = {line[:26].strip(): line[26:].split()[0] for line in seen["limits"].splitlines()}
    assert limits["Max address space"] == str(4 * 1024**3)
    assert limits["Max cpu time"] == "420"
    assert limits["Max file size"] == limits["Max core file size"] == "0"


def test_progress_is_told(hour: Path) -> None:
    heard: list[tuple[int, int]] = []
    decoded(hour, max_audio_seconds=3600.0, report=lambda stage, done, total: heard.append((done, total)))
    assert heard[0] == (0, 0)
    assert heard[-1] == (3600, 3600)
    assert heard == sorted(heard)


# --- Interruptions -------------------------------------------------------------------------------------------------


def signalling(number: int, ffmpeg_pid: Callable[[], int]) -> Report:
    """Send ffmpeg a signal as soon as it has its own handlers in place."""

    def report(stage: str, done: int, total: int) -> None:
        pid = ffmpeg_pid()
        caught = 1 << (signal.SIGTERM - 1)
        wait_until(
            lambda: bool(int(Path(f"/proc/{pid}/status").read_text().split("SigCgt:")[1].split()[0], 16) & caught)
        )
        os.kill(pid, number)

    return report


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_an_ffmpeg_stopped_from_outside_is_no_short_recording(
    hour: Path, ffmpeg_pid: Callable[[], int], number: signal.Signals
) -> None:
    with pytest.raises(DecoderStopped, match=number.name):
        decoded(hour, max_audio_seconds=3600.0, report=signalling(number, ffmpeg_pid))


def test_an_ffmpeg_that_crashes_blames_the_recording(hour: Path, ffmpeg_pid: Callable[[], int]) -> None:
    with pytest.raises(RecordingUndecodable, match=r"crashed on it \(SIGSEGV"):
        decoded(hour, max_audio_seconds=3600.0, report=signalling(signal.SIGSEGV, ffmpeg_pid))


def test_an_ffmpeg_out_of_processor_time_blames_the_recording(hour: Path, ffmpeg_pid: Callable[[], int]) -> None:
    with pytest.raises(RecordingUndecodable, match="processor time"):
        decoded(hour, max_audio_seconds=3600.0, report=signalling(signal.SIGXCPU, ffmpeg_pid))


def test_an_ffmpeg_that_hangs_is_given_up(hour: Path, ffmpeg_pid: Callable[[], int]) -> None:
    stopped: list[int] = []

    def stop_once(stage: str, done: int, total: int) -> None:
        if not stopped:
            stopped.append(ffmpeg_pid())
            os.kill(stopped[0], signal.SIGSTOP)

    with pytest.raises(RecordingUndecodable, match=r"hangs: no sample for 0\.5 s"):
        decode(hour, max_audio_seconds=3600.0, report=stop_once, stall_timeout_seconds=0.5)


def test_cancel_passes_through(hour: Path) -> None:
    def cancel(stage: str, done: int, total: int) -> None:
        raise Cancelled("not wanted any more")

    with pytest.raises(Cancelled):
        decoded(hour, report=cancel)


ORPHAN = """
import os, sys
from pathlib import Path
from diarization.decode import decode

def report(stage, done, total):
    print("running", flush=True)
    sys.stdin.readline()

decode(Path(sys.argv[1]), max_audio_seconds=3600.0, report=report)
"""


def test_ffmpeg_ends_with_a_worker_that_is_killed(hour: Path) -> None:
    worker = subprocess.Popen(
        [sys.executable, "-c", ORPHAN, hour], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with worker:
        try:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "running\n"
            (pid,) = children(worker.pid)
        finally:
            worker.kill()
    wait_until(lambda: not Path(f"/proc/{pid}").exists() or " Z " in Path(f"/proc/{pid}/stat").read_text(), seconds=5.0)


# --- Files that name other files -----------------------------------------------------------------------------------


@pytest.fixture
def site() -> Iterator[Site]:
    """A server that hands out the sample."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(SAMPLE.read_bytes())

    with serve(answer) as running:
        yield running


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:30\n#EXTINF:30,\n{target}\n#EXT-X-ENDLIST\n",
    "hls of playlists": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{target}\n",
    "hls key": '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{target}"\n#EXTINF:30,\n{target}\n#EXT-X-ENDLIST\n',
    "concat": "ffconcat version 1.0\nfile '{target}'\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT30S"><Period><AdaptationSet mimeType="audio/wav"><Representation id="1" '
    'bandwidth="1"><BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period></MPD>',
    "svg": '<svg xmlns="http://www.w3.org/2000/svg"><image href="{target}"/></svg>',
}


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_a_recording_cannot_make_the_worker_fetch(kind: str, tmp_path: Path, site: Site) -> None:
    path = tmp_path / "recording.wav"
    path.write_text(PLAYLISTS[kind].format(target=f"{site.url}/a.wav"))
    with pytest.raises(RecordingUndecodable):
        decoded(path)
    assert site.requests == []


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_a_recording_cannot_read_another_file(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "recording.wav"
    path.write_text(PLAYLISTS[kind].format(target=SAMPLE))
    with pytest.raises(RecordingUndecodable):
        decoded(path)


def test_an_unbridled_ffmpeg_would_have_fetched(tmp_path: Path, site: Site) -> None:
    """Else the tests above would prove nothing."""
    path = tmp_path / "script.txt"
    path.write_text(PLAYLISTS["concat"].format(target=f"{site.url}/a.wav"))
    ffmpeg("-safe", "0", "-protocol_whitelist", "file,http,tcp", "-i", path, "-f", "null", "-")
    assert site.requests


@pytest.mark.parametrize("guard", ["protocol", "demuxer"])
def test_either_guard_alone_keeps_a_playlist_out(
    guard: str, tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "recording.wav"
    path.write_text(PLAYLISTS["concat"].format(target=f"{site.url}/a.wav"))
    command = find_ffmpeg().command(16_000)
    option = {"protocol": "-format_whitelist", "demuxer": "-protocol_whitelist"}[guard]
    everything = {"protocol": "concat,wav", "demuxer": "fd,file,http,tcp"}[guard]
    command[command.index(option) + 1] = everything
    monkeypatch.setattr(Ffmpeg, "command", lambda self, sample_rate: [*command[:1], "-safe", "0", *command[1:]])
    with pytest.raises(RecordingUndecodable):
        decoded(path)
    assert site.requests == []


# --- Which ffmpeg --------------------------------------------------------------------------------------------------


@pytest.fixture
def fresh_search() -> Iterator[None]:
    find_ffmpeg.cache_clear()
    yield
    find_ffmpeg.cache_clear()


@pytest.mark.usefixtures("fresh_search")
def test_the_ffmpeg_on_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ffmpeg").symlink_to(find_ffmpeg().path)
    find_ffmpeg.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_ffmpeg().path == str(tmp_path / "ffmpeg")
    assert decoded(SAMPLE).seconds == SAMPLE_SECONDS


OLD = "#!/bin/sh\necho 'Supported file protocols:'\necho Input:\necho '  file'\necho '  pipe'\n"


@pytest.mark.usefixtures("fresh_search")
@pytest.mark.parametrize("script", [OLD, "#!/bin/sh\nexit 127\n", "no script at all"])
def test_an_ffmpeg_that_cannot_be_held_to_one_file_is_passed_over(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ffmpeg").write_text(script)
    (tmp_path / "ffmpeg").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_ffmpeg().path != str(tmp_path / "ffmpeg")
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    find_ffmpeg.cache_clear()
    with pytest.raises(DecoderUnavailable, match=r"6\.0 or later"):
        decoded(SAMPLE)
