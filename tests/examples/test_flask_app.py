"""The Flask example by HTTP, with everything that can go wrong: `make test-examples`.

The stand-in takes the first part of a URL's path for what it is to do: by FLASK_PUBLIC_URL an upload's URL has one.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlencode

import pytest
from redis import Redis

from tasks.diarize import diarize
from tasks.record import State
from tasks.valkey import EmbeddedValkey
from tests.flask_app import RunningApp, running_app
from tests.jobs import record
from tests.processes import ROOT, Worker, wait_until
from tests.servers import free_port

UNKNOWN = "/jobs/00000000-0000-4000-8000-000000000000"
KEY = "CANARY-flask-secret"


@pytest.fixture(scope="module")
def shared_app(server: EmbeddedValkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningApp, Path]]:
    """One for all tests that need no other: it keeps nothing but its folder."""
    folder = tmp_path_factory.mktemp("app")
    settings = {"DIARIZATION_RECORDINGS_DIR": folder / "recordings", "FLASK_MAX_CONTENT_LENGTH": 5000}
    with running_app(folder / "app.log", **settings) as running:
        yield running, folder / "recordings"


@pytest.fixture
def folder(shared_app: tuple[RunningApp, Path]) -> Path:
    """Where recordings lie, empty."""
    shutil.rmtree(shared_app[1], ignore_errors=True)
    shared_app[1].mkdir()
    return shared_app[1]


@pytest.fixture
def app(redis: Redis, folder: Path, shared_app: tuple[RunningApp, Path]) -> RunningApp:
    """An app without uploads and jobs."""
    return shared_app[0]


@pytest.fixture
def scripted(redis: Redis, folder: Path, tmp_path: Path) -> Iterator[Callable[[str], RunningApp]]:
    """Starts the app such that the stand-in does as a script says."""
    with ExitStack() as stack:

        def start(script: str) -> RunningApp:
            settings = {"FLASK_PUBLIC_URL": f"http://stand.in/{script}", "FLASK_SECRET_KEY": KEY}
            app = running_app(tmp_path / "app.log", DIARIZATION_RECORDINGS_DIR=folder, **settings)
            return stack.enter_context(app)

        yield start


def job_id(page: str) -> str:
    return page.rpartition("/")[2]


@pytest.mark.parametrize(
    ("name", "data", "status", "says"),
    [
        ("empty.wav", b"", 400, "empty.wav is empty"),
        ("minutes.pdf", b"%PDF", 415, "minutes.pdf is none of the files that are taken: .wav"),
        ("no-suffix", b"RIFF", 415, "no-suffix is none of"),
        ("long.wav", bytes(6000), 413, "more than 0.005 MB"),
    ],
)
def test_what_is_no_recording_is_refused_and_not_kept(
    app: RunningApp, folder: Path, name: str, data: bytes, status: int, says: str
) -> None:
    answer = app.upload(name, data)
    assert (answer.status_code, says in answer.text) == (status, True), answer.text
    told = app.post("/jobs", files={"recording": (name, data)}, headers={"Accept": "application/json"})
    assert says in told.json()["message"]
    assert list(folder.iterdir()) == []


def test_a_form_without_a_file_or_with_too_many_speakers_is_refused(app: RunningApp, folder: Path) -> None:
    assert "Choose a recording" in app.post("/jobs", data={"num_speakers": "2"}).text
    answer = app.upload("a.wav", b"RIFF", num_speakers=101)
    assert answer.status_code == 400
    assert "num_speakers" in answer.text
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("../../../etc/passwd.wav", "passwd.wav"),
        ('<img src=x onerror="alert(1)">.mp3', "img_srcx_onerroralert1.mp3"),
        ("会议.MP3", "recording.mp3"),
        ("Séance du 12 mars.m4a", "Seance_du_12_mars.m4a"),
        ("x" * 200 + ".wav", "x" * 100 + ".wav"),
        ("--help.wav", "--help.wav"),
        (".wav.wav", "wav.wav"),
    ],
)
def test_file_names_are_made_safe(app: RunningApp, folder: Path, name: str, kept: str) -> None:
    page = app.submit(name, b"RIFF")
    assert [path.relative_to(folder).as_posix() for path in folder.rglob("*.*")] == [f"{job_id(page)}/{kept}"]
    text = app.get(page).text
    assert f"<h1>{kept}</h1>" in text
    assert "<img src=x" not in text


def test_a_refused_name_is_shown_and_not_obeyed(app: RunningApp) -> None:
    text = app.upload("<img src=x>.exe", b"MZ").text
    assert "&lt;img src=x&gt;.exe is none of" in text
    assert "<img src=x" not in text


def test_two_uploads_of_one_name_are_two(app: RunningApp, start_worker: Callable[..., Worker]) -> None:
    pages = [app.submit("meeting.wav", data) for data in (b"RIFF first", b"RIFF second")]
    start_worker()
    assert [app.wait(page)["state"] for page in pages] == ["done", "done"]
    assert [app.get(f"{page}/recording").content for page in pages] == [b"RIFF first", b"RIFF second"]


def test_the_place_in_the_line_and_a_cancel(app: RunningApp, start_worker: Callable[..., Worker]) -> None:
    first, second = app.submit("a.wav", b"RIFF"), app.submit("b.wav", b"RIFF")
    job = app.status(second)
    assert (job["state"], job["place"], job["seconds_left"], job["ended"]) == ("queued", 2, None, False)
    assert "queued" in app.get(second).text  # without a script, too
    assert app.post(f"{first}/cancel").ok
    assert app.status(first)["state"] == "cancelled"
    assert app.status(second)["place"] == 1
    start_worker()
    assert app.wait(second)["state"] == "done"
    assert app.status(first)["ended"]


def test_what_is_left_of_a_running_job(
    scripted: Callable[[str], RunningApp], start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    app = scripted("wait/end")
    start_worker()
    diarize.delay("http://stand.in/work/60/1").get(timeout=30)  # from this its speed is known
    page = app.submit("a.wav", b"RIFF")
    wait_until(lambda: app.status(page)["stage"] == "segmentation")
    job = wait_until(lambda: (told := app.status(page))["seconds_left"] is not None and told)
    assert 0 < job["seconds_left"] < 60
    (tmp_path / "end").touch()
    assert app.wait(page)["state"] == "done"


def test_a_worker_is_killed_while_the_page_asks(
    scripted: Callable[[str], RunningApp], start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    app = scripted("wait/end")
    worker = start_worker(QUEUE_LEASE_SECONDS=4)
    page = app.submit("a.wav", b"RIFF")
    wait_until(lambda: app.status(page)["state"] == "running")
    worker.kill()
    (tmp_path / "end").touch()
    start_worker(QUEUE_LEASE_SECONDS=4)
    assert app.wait(page)["state"] == "done"
    assert app.status(page)["attempts"] == 2


def test_an_error_is_shown_with_its_advice(
    scripted: Callable[[str], RunningApp], start_worker: Callable[..., Worker]
) -> None:
    app = scripted("fail/recording_too_long")
    start_worker()
    page = app.submit("a.wav", b"RIFF")
    error = app.wait(page)["error"]
    assert error["code"] == "recording_too_long"
    assert error["advice"].startswith("Split the recording")
    assert error["advice"] in app.get(page).text


def test_redis_is_away_while_the_page_asks(app: RunningApp, server: EmbeddedValkey, folder: Path) -> None:
    page = app.submit("a.wav", b"RIFF")
    server.kill()
    try:
        told = app.get(f"{page}/status", headers={"Accept": "application/json"})
        assert (told.status_code, told.json()["message"]) == (503, "The queue does not answer at the moment.")
        shown = app.get(page)
        assert shown.status_code == 503
        assert '<meta http-equiv="refresh"' in shown.text
        refused = app.upload("b.wav", b"RIFF")
        assert refused.status_code == 503
        assert "refresh" not in refused.text  # it would not send the file again
        assert len(list(folder.iterdir())) == 1
        assert app.get("/").ok
    finally:
        server.start()
    assert app.status(page)["place"] == 1


def test_a_full_disk(redis: Redis, folder: Path, tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no small file system can be mounted here")
    try:
        with running_app(tmp_path / "log", DIARIZATION_RECORDINGS_DIR=folder) as app:
            answer = app.upload("a.wav", bytes(200_000))
            assert (answer.status_code, "There is no room here" in answer.text) == (507, True)
            assert list(folder.iterdir()) == []
            assert app.upload("b.wav", b"RIFF").status_code == 303
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("path", ["", "/status", "/recording", "/result.json"])
def test_a_job_that_is_unknown_or_forgotten(app: RunningApp, path: str) -> None:
    answer = app.get(UNKNOWN + path)
    assert answer.status_code == 404
    assert "forgotten 7 days after" in answer.text or "deleted" in answer.text
    assert app.get(f"/jobs/..%2f..%2fetc{path}").status_code == 404


def test_a_format_that_there_is_not(app: RunningApp, start_worker: Callable[..., Worker]) -> None:
    start_worker()
    page = app.submit("a.wav", b"RIFF")
    app.wait(page)
    assert "json, rttm, srt, vtt, csv, labels" in app.get(f"{page}/result.docx").text


def test_a_job_is_deleted_with_all_of_it_once_it_has_ended(
    app: RunningApp, folder: Path, start_worker: Callable[..., Worker]
) -> None:
    page = app.submit("a.wav", b"RIFF")
    assert "cancel it" in app.post(f"{page}/delete").text
    assert list(folder.iterdir())
    start_worker()
    app.wait(page)
    wait_until(lambda: app.post(f"{page}/delete").ok)
    assert list(folder.iterdir()) == []
    assert app.get(page).status_code == 404


def test_a_form_of_another_site_does_nothing(app: RunningApp) -> None:
    page = app.submit("a.wav", b"RIFF")
    for origin in ("https://evil.example", "null", app.url.replace("127.0.0.1", "localhost")):
        assert app.post(f"{page}/cancel", headers={"Origin": origin}).status_code == 403, origin
    assert record(job_id(page)).state is State.QUEUED
    assert app.post(f"{page}/cancel", headers={"Origin": app.url}).ok
    assert record(job_id(page)).state is State.CANCELLED


def test_a_link_is_good_for_its_upload_until_it_runs_out(redis: Redis, folder: Path, tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    settings = {"DIARIZATION_RECORDINGS_DIR": folder, "FLASK_PUBLIC_URL": url, "FLASK_SECRET_KEY": KEY}
    with running_app(tmp_path / "log", port=port, **settings) as app:
        one, other = (app.submit("a.wav", b"RIFF") for _ in range(2))
        link = str(dict(record(job_id(one)).request or {})["url"]).removeprefix(url)
        assert app.get(link).content == b"RIFF"
        path, _, query = link.partition("?")
        expires = query.partition("&")[0].removeprefix("Expires=")
        signature = query.partition("Signature=")[2]
        for forged in (
            path,
            link.replace(job_id(one), job_id(other)),
            f"{path}?{urlencode({'Expires': int(expires) + 1, 'Signature': signature})}",
            f"{path}?Expires={expires}&Signature=",
            f"{path}?Expires=soon&Signature={signature}",
        ):
            assert app.get(forged).status_code == 403, forged
        assert signature not in record(job_id(one)).shown
    with running_app(tmp_path / "log", port=port, FLASK_LINK_HOURS=-1, **settings) as app:
        page = app.submit("a.wav", b"RIFF")
        link = str(dict(record(job_id(page)).request or {})["url"]).removeprefix(url)
        assert app.get(link).status_code == 403


def test_headers_keep_scripts_and_frames_out(app: RunningApp) -> None:
    for path in ("/", UNKNOWN, "/static/app.js"):
        headers = app.get(path).headers
        assert "default-src 'self'" in headers["Content-Security-Policy"], path
        assert headers["X-Content-Type-Options"] == "nosniff", path


@pytest.mark.parametrize(
    "settings",
    [{}, {"FLASK_SECRET_KEY": KEY}, {"FLASK_PUBLIC_URL": "http://app.example", "DIARIZATION_RECORDINGS_DIR": "/tmp"}],
)
def test_without_a_way_to_the_recordings_it_does_not_start(settings: dict[str, str]) -> None:
    command = [sys.executable, "-m", "flask", "--app", "examples/flask_app/app", "routes"]
    environment = {**os.environ, **settings}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "set DIARIZATION_RECORDINGS_DIR" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_ends_leaves_its_jobs_to_the_next(
    redis: Redis, folder: Path, tmp_path: Path, start_worker: Callable[..., Worker]
) -> None:
    with running_app(tmp_path / "log", DIARIZATION_RECORDINGS_DIR=folder) as app:
        page = app.submit("a.wav", b"RIFF")
        app.process.send_signal(signal.SIGKILL)
        app.process.wait()
    start_worker()
    with running_app(tmp_path / "log", DIARIZATION_RECORDINGS_DIR=folder) as app:
        assert app.wait(page)["state"] == "done"
        assert app.get(f"{page}/recording").content == b"RIFF"
