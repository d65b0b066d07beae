"""The Flask example as the guide has it deployed: Redis by TLS, the real model, recordings/."""

from __future__ import annotations

from pathlib import Path

import pytest

from diarization.formats import FORMATS
from diarization.scoring import der, read_rttm
from diarization.turns import Diarization
from tests.examples.conftest import GUIDE, PASSWORD, RealQueue
from tests.flask_app import RunningApp, running_app
from tests.processes import ROOT
from tests.servers import LOOPBACK, free_port

pytestmark = pytest.mark.model

SAMPLE = ROOT / "recordings" / "sample" / "sample.wav"
SECRETS = [PASSWORD, *GUIDE.values()]


def result(app: RunningApp, page: str) -> Diarization:
    return Diarization.from_json(app.get(f"{page}/result.json").json())


def test_an_upload_becomes_turns_in_each_format(real_app: RunningApp, real_queue: RealQueue) -> None:
    page = real_app.submit("Séance du conseil.wav", SAMPLE.read_bytes())
    assert real_app.wait(page, 240)["state"] == "done"
    found = result(real_app, page)
    assert der(read_rttm(SAMPLE.with_suffix(".rttm")), found.segments).der < 0.1
    for key, form in FORMATS.items():
        answer = real_app.get(f"{page}/result.{key}", params={"SPEAKER_00": "Diane"})
        assert answer.text.count("Diane") > 2, key
        assert answer.headers["Content-Disposition"].endswith(f"Seance_du_conseil{form.suffix}"), key
    heard = real_app.get(f"{page}/recording", headers={"Range": "bytes=0-3"})
    assert (heard.status_code, heard.content, heard.headers["Content-Type"]) == (206, b"RIFF", "audio/wav")
    assert not [secret for secret in SECRETS if secret in real_app.log + real_queue.worker.log]


def test_a_text_file_with_another_name_is_told(real_app: RunningApp) -> None:
    page = real_app.submit("minutes.wav", b"The council met at seven.\n" * 100)
    job = real_app.wait(page)
    assert (job["state"], job["error"]["code"]) == ("dead", "recording_undecodable")
    assert job["error"]["advice"] in real_app.get(page).text
    assert real_app.get(f"{page}/result.rttm").status_code == 404


def test_a_worker_without_the_folder_fetches_by_a_link(real_queue: RealQueue, tmp_path: Path) -> None:
    port = free_port()
    link = {"FLASK_PUBLIC_URL": f"http://{LOOPBACK}:{port}", "FLASK_SECRET_KEY": "CANARY-flask-secret"}
    own_folder = {"DIARIZATION_RECORDINGS_DIR": tmp_path}
    with running_app(tmp_path / "log", port=port, REDIS_URL=real_queue.url, **own_folder, **link) as app:
        page = app.submit("sample.wav", SAMPLE.read_bytes(), num_speakers=2)
        assert app.wait(page, 240)["state"] == "done"
        assert len(result(app, page).speakers) == 2
        assert app.post(f"{page}/delete").ok
    signature = app.log.partition("Signature=")[2].partition(" ")[0]
    assert signature  # the development server shows whole requests; nothing of ours does
    assert signature not in real_queue.worker.log


def test_without_the_ca_nothing_is_sent(real_queue: RealQueue, tmp_path: Path) -> None:
    untrusting = real_queue.url.partition("?")[0]
    with running_app(tmp_path / "log", REDIS_URL=untrusting, DIARIZATION_RECORDINGS_DIR=tmp_path) as app:
        assert app.upload("sample.wav", b"RIFF").status_code == 503
        assert "certificate verify failed" in app.log
        assert PASSWORD not in app.log
