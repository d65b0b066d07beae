"""The real model in the real handler in the SDK's loop: the same answer as at home, and the same limits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

from diarization import __version__, canary
from diarization.diarizer import BUNDLED_MODEL, DiarizerOptions
from diarization.recording import Recording
from diarization.turns import Diarization, SpeakerHints
from docs.generators.results import schema
from tasks.settings import read_settings
from tests.emulator import Emulator, Settings
from tests.processes import ROOT, wait_until
from tests.remote import post, status, submit_url, wait
from tests.servers import Site, serve_folder

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with serve_folder(ROOT / "recordings" / "sample") as running:
        yield running


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    folder: Path = tmp_path_factory.mktemp("endpoint")
    with Emulator(folder, Settings(active_workers=1), environment={"DIARIZATION_DEVICE": "cpu"}) as running:
        yield running


def test_after_a_cancelled_job_the_answer_is_the_same_as_at_home(emulator: Emulator, site: Site) -> None:
    from diarization.pipeline import load

    url = f"{site.url}/sample.wav"
    cancelled = submit_url(emulator, url)
    wait_until(lambda: f"job {cancelled}: " in emulator.log(), seconds=60)
    post(emulator, f"cancel/{cancelled}")
    job_id = submit_url(emulator, url)
    options: DiarizerOptions = read_settings().diarizer_options()
    assert options.model == str(BUNDLED_MODEL)
    local = load(options).diarize(Recording(url), SpeakerHints(), lambda *_: None)
    told = wait(emulator, job_id)
    assert told["status"] == "COMPLETED", told
    remote = Diarization.from_json(told["output"])
    assert remote.segments == local.segments
    assert remote.exclusive_segments == local.exclusive_segments
    assert remote.speakers == local.speakers
    assert remote.audio_seconds == local.audio_seconds
    assert remote.provenance.provider == "runpod"
    assert remote.provenance.versions == local.provenance.versions
    assert status(emulator, cancelled)["status"] == "CANCELLED"
    log = emulator.log()
    assert f"job {cancelled} failed" in log
    assert f"job {cancelled} done" not in log
    assert log.count("model loaded in") == 1


def test_it_answers_the_canary(emulator: Emulator) -> None:
    told = wait(emulator, submit_url(emulator, canary.URL))
    jsonschema.validate(told["output"], schema())
    answer = Diarization.from_json(told["output"])
    assert canary.complaint(answer) is None
    assert answer.provenance.versions["diarize-queue"] == __version__


def test_limits_and_address_rules_are_the_same(emulator: Emulator, site: Site) -> None:
    urls = {
        f"{site.url}/no-such.wav": "recording_not_found",
        f"{site.url}/sample.stm": "recording_undecodable",
        "http://169.254.169.254/latest/meta-data": "url_not_allowed",
    }
    jobs = {submit_url(emulator, url): code for url, code in urls.items()}
    for job_id, code in jobs.items():
        assert wait(emulator, job_id)["error"].startswith(f"{code}: ")
