"""The whole way with the real model: recordings over HTTP, a server, `celery -A tasks worker`.

That the turns are stock's on this way, too, the demo shows (`test_demo.py`).

RENEW=1 writes docs/sample.result.json anew.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator

import jsonschema
import pytest
from redis import Redis

from diarization.errors import Cancelled
from diarization.ffmpeg import find_ffmpeg
from diarization.formats import to_json
from diarization.scoring import der
from diarization.turns import Diarization
from docs.generators.results import SAMPLE as SHOWN
from docs.generators.results import schema
from tasks.diarize import diarize
from tasks.record import State
from tests.jobs import record
from tests.processes import ROOT, Worker, wait_until
from tests.servers import Site, serve_folder

pytestmark = pytest.mark.model

SAMPLE = ROOT / "recordings" / "sample" / "sample.wav"
OTHERS = {
    "sample.mp3": ["-c:a", "libmp3lame", "-b:a", "128k"],
    "sample.m4a": ["-c:a", "aac", "-b:a", "128k"],
    "video.mp4": ["-f", "lavfi", "-i", "color=c=black:s=64x64:r=5", "-shortest", "-c:v", "mpeg4", "-c:a", "aac"],
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("recordings")
    (folder / "sample.wav").write_bytes(SAMPLE.read_bytes())
    for name, options in OTHERS.items():
        ffmpeg = [str(find_ffmpeg().path), "-loglevel", "error", "-i", str(SAMPLE), *options, str(folder / name)]
        subprocess.run(ffmpeg, check=True)
    with serve_folder(folder) as running:
        yield running


@pytest.fixture(scope="module")
def worker(module_redis: Redis, start_module_worker: Callable[..., Worker]) -> Worker:
    return start_module_worker(DIARIZATION_DIARIZER="diarization.pipeline:load", DIARIZATION_DEVICE="cpu")


@pytest.fixture(scope="module")
def of_the_sample(worker: Worker, site: Site) -> Diarization:
    return Diarization.from_json(diarize.delay(f"{site.url}/sample.wav?X-Signature=canary").get(timeout=240))


def test_the_result_is_whole(of_the_sample: Diarization, worker: Worker) -> None:
    assert of_the_sample.audio_seconds == pytest.approx(30.0, abs=0.01)
    assert [speaker.speaker for speaker in of_the_sample.speakers] == ["SPEAKER_00", "SPEAKER_01"]
    assert of_the_sample.exclusive_segments
    assert not of_the_sample.warnings
    assert {"download", "decode", "segmentation", "embedding", "clustering"} <= set(
        of_the_sample.provenance.stage_seconds
    )
    assert of_the_sample.provenance.model == "speaker-diarization-community-1"
    assert of_the_sample.provenance.device == "cpu"
    assert "canary" not in worker.log
    jsonschema.validate(of_the_sample.to_json(), schema())


def test_the_docs_show_what_comes_out(of_the_sample: Diarization) -> None:
    if os.environ.get("RENEW"):
        SHOWN.write_text(to_json(of_the_sample, "sample"))
    shown = Diarization.from_json(json.loads(SHOWN.read_text()))
    # Not the same to the last frame: another processor rounds otherwise.
    assert der(shown.segments, of_the_sample.segments).der < 0.01
    assert der(shown.exclusive_segments, of_the_sample.exclusive_segments).der < 0.01
    assert of_the_sample.audio_seconds == shown.audio_seconds
    assert of_the_sample.provenance.model == shown.provenance.model


@pytest.mark.parametrize("name", OTHERS)
def test_another_codec_changes_the_turns_by_little(of_the_sample: Diarization, site: Site, name: str) -> None:
    other = Diarization.from_json(diarize.delay(f"{site.url}/{name}").get(timeout=240))
    assert len(other.speakers) == len(of_the_sample.speakers)
    assert der(of_the_sample.segments, other.segments).der < 0.03


def test_a_cancel_leaves_the_model_loaded(worker: Worker, site: Site, module_redis: Redis) -> None:
    children = worker.children
    job = diarize.delay(f"{site.url}/sample.wav?cancelled")
    wait_until(lambda: record(job.id).stage == "embedding", seconds=120)
    job.revoke()
    with pytest.raises(Cancelled):
        job.get(timeout=60)
    assert record(job.id).state is State.CANCELLED
    quiet = diarize.delay(f"{site.url}/sample.wav?next")
    wait_until(lambda: record(quiet.id).stage == "segmentation", seconds=60, what="the next job runs")
    assert worker.children == children
    quiet.revoke()


def test_a_process_that_dies_with_the_model_costs_an_attempt_not_the_job(
    worker: Worker, site: Site, of_the_sample: Diarization
) -> None:
    job = diarize.delay(f"{site.url}/sample.wav?killed")
    wait_until(lambda: record(job.id).stage == "embedding", seconds=120)
    os.kill(worker.children[0], signal.SIGKILL)
    again = Diarization.from_json(job.get(timeout=240))
    assert again.segments == of_the_sample.segments
    assert again.provenance.attempts == 2
