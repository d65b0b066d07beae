"""The real model: stock's answer, whatever the recording and whatever the hints."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray

from diarization import canary
from diarization.diarizer import BUNDLED_MODEL, DiarizerOptions
from diarization.errors import ModelUnavailable, OutOfMemory
from diarization.pipeline import load
from diarization.recording import Recording
from diarization.scoring import der, read_rttm
from diarization.stock import stock_diarization
from diarization.turns import Diarization, SpeakerHints
from tests.processes import ROOT
from tests.pyannote_model import RECORDINGS, SAMPLE, SAMPLE_RATE, pyannote, sample

pytestmark = pytest.mark.model

NO_HINTS = SpeakerHints()


def ignore(stage: str, done: int, total: int) -> None:
    """A report nobody reads."""


@pytest.mark.timeout(900)  # two runs of the whole sample, on cores that may be shared
def test_the_turns_of_the_sample_are_those_of_stock() -> None:
    ours = pyannote().diarize(Recording(f"file://{SAMPLE}"), NO_HINTS, ignore)
    stock, seconds = stock_diarization(sample(), str(BUNDLED_MODEL), batch_sizes=(8, 1))

    assert (ours.segments, ours.exclusive_segments) == (stock.segments, stock.exclusive_segments)
    assert ours.speakers[0].total_seconds == stock.speakers[0].total_seconds
    assert seconds > 0
    score = der(read_rttm(RECORDINGS / "sample" / "sample.rttm"), ours.segments)
    assert score.der == pytest.approx(0.052, abs=0.0005)
    assert list(ours.provenance.stage_seconds) == ["download", "decode", "segmentation", "embedding", "clustering"]
    assert set(ours.provenance.versions) >= {"torch", "pyannote.audio"}
    assert [len(speaker.embedding or ()) for speaker in ours.speakers] == [256, 256]


def test_the_canary_has_its_known_answer() -> None:
    assert canary.complaint(pyannote().diarize(Recording(canary.URL), NO_HINTS, ignore)) is None


def noise(seconds: float) -> NDArray[np.float32]:
    return np.sign(np.random.default_rng(0).standard_normal(int(seconds * SAMPLE_RATE))).astype(np.float32)


@pytest.mark.parametrize(
    "samples",
    [
        pytest.param(np.zeros(0, np.float32), id="no sample"),
        pytest.param(np.zeros(1, np.float32), id="1 sample"),
        pytest.param(sample(7, 7.02), id="less than a frame"),
        pytest.param(np.zeros(12 * SAMPLE_RATE, np.float32), id="zeros"),
        pytest.param(np.ones(12 * SAMPLE_RATE, np.float32), id="a constant"),
        pytest.param(noise(12), id="clipped noise"),
        pytest.param(np.full(SAMPLE_RATE, np.nan, np.float32), id="not a number"),
    ],
)
@pytest.mark.parametrize("hints", [NO_HINTS, SpeakerHints(num_speakers=3), SpeakerHints(min_speakers=2)])
def test_where_nobody_speaks_there_are_no_turns(samples: NDArray[np.float32], hints: SpeakerHints) -> None:
    result = pyannote().diarize_waveform(samples, hints, ignore)

    assert (result.segments, result.exclusive_segments, result.speakers) == ((), (), ())
    assert result.audio_seconds == len(samples) / SAMPLE_RATE
    assert bool(result.warnings) == (hints != NO_HINTS)


@pytest.mark.parametrize(
    ("start", "end", "hints", "speakers", "warnings"),
    [
        pytest.param(7, 8, {}, 1, (), id="shorter than a chunk"),
        pytest.param(7, 8, {"num_speakers": 2}, 1, ("asked for 2 speakers, found 1",), id="one voice, two wanted"),
        pytest.param(7, 17, {"num_speakers": 5}, 2, ("asked for 5 speakers, found 2",), id="stock: ValueError"),
        pytest.param(7, 17, {"min_speakers": 5}, 2, ("asked for at least 5 speakers, found 2",), id="likewise"),
        pytest.param(7, 17, {"num_speakers": 100}, 2, ("asked for 100 speakers, found 2",), id="far too many"),
        pytest.param(7, 17, {"max_speakers": 100}, 2, (), id="a bound far away"),
        pytest.param(7, 17, {"num_speakers": 1}, 1, (), id="fewer than there are"),
        pytest.param(7, 19, {"min_speakers": 3, "max_speakers": 5}, 3, (), id="more than there are"),
    ],
)
def test_a_hint_never_breaks_a_job(
    start: float, end: float, hints: dict[str, int], speakers: int, warnings: tuple[str, ...]
) -> None:
    result = pyannote().diarize_waveform(sample(start, end), SpeakerHints(**hints), ignore)

    assert len(result.speakers) == speakers
    assert result.warnings == warnings


def test_a_hint_that_was_dropped_leaves_the_answer_of_no_hint() -> None:
    voices = sample(7, 17)

    dropped = pyannote().diarize_waveform(voices, SpeakerHints(num_speakers=9), ignore)

    assert dropped.segments == pyannote().diarize_waveform(voices, NO_HINTS, ignore).segments


def test_a_speaker_never_heard_alone_for_long_has_no_embedding() -> None:
    (speaker,) = pyannote().diarize_waveform(sample(7, 8), NO_HINTS, ignore).speakers

    assert speaker.embedding is None


def test_a_device_out_of_memory_is_transient_and_leaves_the_model_usable() -> None:
    def too_much(stage: str, done: int, total: int) -> None:
        if stage == "embedding":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore words.")

    with pytest.raises(OutOfMemory, match=r"^out of memory: CUDA out of memory\. Tried to allocate 2\.00 GiB\.$"):
        pyannote().diarize_waveform(sample(7, 8), NO_HINTS, too_much)
    assert pyannote().diarize_waveform(sample(7, 8), NO_HINTS, ignore).segments


def test_no_waveform_is_kept_after_its_job() -> None:
    samples = sample(7, 8)
    gone = weakref.ref(samples)

    pyannote().diarize_waveform(samples, NO_HINTS, ignore)
    del samples
    gc.collect()

    assert gone() is None


def test_a_gpu_that_is_not_there_is_named() -> None:
    with pytest.raises(ModelUnavailable, match="the device cuda:99 was asked for, but torch sees"):
        load(DiarizerOptions(model=str(BUNDLED_MODEL), device="cuda:99"))


# pyannote's telemetry sends in the background: whatever it has kept to be sent is sent at the flush.
WATCHED = """
import json, sys
calls = []
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        calls.append(event)
        raise PermissionError("this test opens no connection")
sys.addaudithook(watch)

import numpy as np
from diarization.diarizer import DiarizerOptions
from diarization.diarizer import BUNDLED_MODEL
from diarization.pipeline import load
from diarization.turns import SpeakerHints

diarizer = load(DiarizerOptions(model=str(BUNDLED_MODEL), device="cpu"))
diarizer.diarize_waveform(np.zeros(16000, np.float32), SpeakerHints(), lambda stage, done, total: None)

from pyannote.audio.telemetry.metrics import provider
provider.force_flush()
print(json.dumps(calls))
"""


def test_nothing_is_sent_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYANNOTE_METRICS_ENABLED", "true")

    done = subprocess.run([sys.executable, "-c", WATCHED], cwd=ROOT, capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


def test_stock_runs_as_a_command_and_prints_json(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "short.wav", sample(7, 8), SAMPLE_RATE)
    (tmp_path / "short.rttm").write_text("SPEAKER short 1 0.0 1.08 <NA> <NA> ann <NA> <NA>\n")
    command = [sys.executable, "-m", "diarization.stock", str(tmp_path / "short.wav")]
    command += ["--reference", str(tmp_path / "short.rttm"), "--segmentation-batch", "8", "--embedding-batch", "1"]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["der"]["collar"] == 0.0
    assert answer["der"]["der"] < 0.2
    assert answer["seconds"] > 0
    expected = pyannote().diarize_waveform(sample(7, 8), NO_HINTS, ignore)
    assert Diarization.from_json(answer["diarization"]).segments == expected.segments
