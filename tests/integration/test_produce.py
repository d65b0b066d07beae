"""What docs/produce.md tells to write works: async, in Django, with Celery alone, and without it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import uvicorn
from redis import Redis

from tasks.diarize import diarize
from tasks.record import State
from tasks.signature import new_secret
from tasks.valkey import EmbeddedValkey
from tests.jobs import record
from tests.pages import code_blocks
from tests.processes import Worker, running_server, wait_until
from tests.servers import free_port

SECRET = new_secret()


def written() -> dict[str, str]:
    """The files of the page, by the name in their first line."""
    blocks = [*code_blocks("produce.md", "python"), *code_blocks("produce.md", "javascript")]
    return {block.split("\n")[0].split(" ")[1]: block for block in blocks}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With all of the page's files in it."""
    folder = tmp_path_factory.mktemp("produce")
    for name, text in written().items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module", autouse=True)
def worker(module_redis: Redis, start_module_worker: Callable[..., Worker]) -> Worker:
    return start_module_worker(WEBHOOK_SECRET=SECRET, WEBHOOK_ALLOWED_NETWORKS="127.0.0.0/8")


def ask(url: str, data: bytes | None = None, **headers: str) -> tuple[int, Any]:
    """A request's status, and what came back as JSON."""
    try:
        with urlopen(Request(url, data, headers), timeout=30) as response:
            return response.status, json.loads(response.read() or "null")
    except HTTPError as error:
        with error:
            return error.code, json.loads(error.read() or "null")


def test_each_file_of_the_page_is_used_here() -> None:
    text = Path(__file__).read_text() + (Path(__file__).parents[1] / "release" / "test_typing.py").read_text()
    assert [name for name in written() if f'"{name}"' not in text] == []


@pytest.fixture(scope="module")
def fastapi_site(folder: Path) -> Iterator[str]:
    """The app, in a thread of this process."""
    os.environ["WEBHOOK_SECRET"] = SECRET
    sys.path.insert(0, str(folder))
    assert {"fastapi_app.py", "fastapi_webhook.py"} <= {path.name for path in folder.iterdir()}
    from fastapi_webhook import app

    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()
    sys.path.remove(str(folder))
    del os.environ["WEBHOOK_SECRET"]


def submit(site: str, **meeting: Any) -> tuple[int, Any]:
    return ask(f"{site}/meetings", json.dumps(meeting).encode(), **{"Content-Type": "application/json"})


def test_fastapi_from_the_submission_to_the_turns(fastapi_site: str) -> None:
    status, body = submit(fastapi_site, url="http://stand.in/turns/20/3", num_speakers=2)
    assert status == 202
    seen = wait_until(lambda: (at := ask(f"{fastapi_site}/meetings/{body['id']}")[1])["state"] == "done" and at)
    assert {turn["speaker"] for turn in seen["result"]["segments"]} == {"SPEAKER_00", "SPEAKER_01"}
    assert ask(f"{fastapi_site}/meetings/unknown")[0] == 404


def test_fastapi_errors(fastapi_site: str) -> None:
    status, body = submit(fastapi_site, url="ftp://stand.in/x")
    assert (status, body["detail"]["code"]) == (422, "url_not_allowed")
    _, body = submit(fastapi_site, url="http://stand.in/fail/recording_not_found")
    wait_until(lambda: ask(f"{fastapi_site}/meetings/{body['id']}")[1]["error"] == "recording_not_found")


def test_the_loop_goes_on_while_redis_is_frozen(fastapi_site: str, server: EmbeddedValkey) -> None:
    told: list[tuple[int, Any]] = []
    asking = threading.Thread(target=lambda: told.append(submit(fastapi_site, url="http://stand.in/frozen")))
    server.process.send_signal(signal.SIGSTOP)
    try:
        asking.start()
        meanwhile = 0
        while asking.is_alive():
            assert ask(f"{fastapi_site}/openapi.json")[0] == 200
            meanwhile += asking.is_alive()
    finally:
        server.process.send_signal(signal.SIGCONT)
    assert [(status, body["detail"]["code"]) for status, body in told] == [(503, "queue_unavailable")]
    assert meanwhile > 3, "others were answered while that one waited"


def test_fastapi_webhook(fastapi_site: str) -> None:
    from fastapi_webhook import told

    job = diarize.delay("http://stand.in/turns/5/1?hook", webhook=f"{fastapi_site}/diarized")
    wait_until(lambda: told.get(job.id) == "done")
    assert ask(f"{fastapi_site}/diarized", b"{}")[0] == 401


DJANGO = """
import os, sys
from django.conf import settings
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["*"], ROOT_URLCONF="site_of_django", INSTALLED_APPS=["meetings"], SECRET_KEY="x",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "django.db"}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField", DIARIZED_URL=os.environ["DIARIZED_URL"],
)
sys.modules["site_of_django"] = sys.modules[__name__]
import django
django.setup()
from meetings import views
urlpatterns = [
    path("meetings", views.submit), path("meetings/<int:meeting_id>", views.show), path("diarized", views.diarized),
]
if __name__ == "__main__":
    from django.core.management import execute_from_command_line
    execute_from_command_line(["manage.py", *sys.argv[1:]])
"""
ROLLED_BACK = """
from contextlib import suppress
import site_of_django
from django.db import transaction
from meetings.models import Meeting
with suppress(KeyError), transaction.atomic():
    meeting = Meeting.objects.create(url="http://stand.in/turns/5/1", job_id="rolled-back")
    transaction.on_commit(meeting.submit)
    raise KeyError
meeting = Meeting.objects.create(url="http://stand.in/turns/5/1", job_id="twice")
meeting.submit()
meeting.submit()
"""


@pytest.fixture(scope="module")
def django_project(folder: Path, server: EmbeddedValkey) -> Iterator[tuple[str, dict[str, str]]]:
    """The site's URL and the environment of its processes."""
    (folder / "site_of_django.py").write_text(DJANGO)
    for name in ("meetings/models.py", "meetings/views.py"):
        assert (folder / name).exists()
    (folder / "meetings" / "__init__.py").touch()
    site = f"http://127.0.0.1:{(port := free_port())}"
    own = {"WEBHOOK_SECRET": SECRET, "DIARIZED_URL": f"{site}/diarized", "REDIS_URL": server.url}
    environment, manage = {**os.environ, **own}, [sys.executable, "site_of_django.py"]
    subprocess.run([*manage, "migrate", "--run-syncdb"], cwd=folder, env=environment, check=True, capture_output=True)
    serving, log = [*manage, "runserver", "--noreload", str(port)], folder / "django.log"
    with running_server(serving, log, lambda: "Quit the server" in log.read_text(), folder=folder, **own):
        yield site, environment


def test_django_from_the_submission_to_the_turns(django_project: tuple[str, dict[str, str]]) -> None:
    site, _ = django_project
    status, body = ask(f"{site}/meetings", b"url=http%3A%2F%2Fstand.in%2Fturns%2F20%2F3")
    assert status == 202
    turns = wait_until(lambda: ask(f"{site}/meetings/{body['id']}")[1]["turns"])
    assert {turn["speaker"] for turn in turns} == {"SPEAKER_00", "SPEAKER_01", "SPEAKER_02"}
    assert ask(f"{site}/diarized", b"{}")[0] == 401


def test_django_failures(django_project: tuple[str, dict[str, str]]) -> None:
    site, _ = django_project
    _, wrong = ask(f"{site}/meetings", b"url=ftp%3A%2F%2Fstand.in")
    assert ask(f"{site}/meetings/{wrong['id']}")[1]["failure"] == "url_not_allowed"
    _, absent = ask(f"{site}/meetings", b"url=http%3A%2F%2Fstand.in%2Ffail%2Frecording_not_found")
    wait_until(lambda: ask(f"{site}/meetings/{absent['id']}")[1]["failure"] == "recording_not_found")


def test_no_row_no_job_and_one_row_one_job(django_project: tuple[str, dict[str, str]], folder: Path) -> None:
    _, environment = django_project
    subprocess.run([sys.executable, "-c", ROLLED_BACK], cwd=folder, env=environment, check=True, timeout=60)
    assert diarize.records.get("rolled-back") is None
    wait_until(lambda: record("twice").state is State.DONE)
    assert record("twice").attempts == 1


def without_this_package(folder: Path, *code: str, redis_url: str) -> subprocess.CompletedProcess[str]:
    """A Python that has this environment's packages, and neither `tasks` nor `diarization`."""
    path = f"{folder}:{sysconfig.get_path('purelib')}"  # whose .pth files, which lead to this project, are not read
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": path, "REDIS_URL": redis_url}
    command = [sys.executable, "-S", *code]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_with_celery_alone(folder: Path, server: EmbeddedValkey) -> None:
    assert (folder / "celery_only.py").exists()
    hidden = without_this_package(folder, "-c", "import diarization", redis_url=server.url)
    assert "No module named 'diarization'" in hidden.stderr
    done = without_this_package(folder, "use_celery_only.py", redis_url=server.url)
    assert done.stderr == ""
    turn, refusal = done.stdout.splitlines()
    assert turn in ("SPEAKER_00", "SPEAKER_01")
    assert refusal.startswith("UrlNotAllowed scheme 'ftp' is not one of")


def test_with_celery_alone_while_redis_is_down(folder: Path) -> None:
    code = "from celery_only import diarize; diarize('http://stand.in/x')"
    done = without_this_package(folder, "-c", code, redis_url=f"redis://127.0.0.1:{free_port()}/0")
    assert "Connection refused" in done.stderr


def test_without_celery(folder: Path, server: EmbeddedValkey) -> None:
    done = without_this_package(folder, "raw_message.py", redis_url=server.url)
    assert done.stdout in ("SPEAKER_00\n", "SPEAKER_01\n"), done.stderr


def test_from_node(folder: Path, server: EmbeddedValkey) -> None:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("no node and npm here")
    installing = [npm, "install", "--no-audit", "--no-fund", "--silent", "ioredis@5"]
    if subprocess.run(installing, cwd=folder, capture_output=True, timeout=120, check=False).returncode:
        pytest.skip("ioredis cannot be had here")
    environment = {**os.environ, "REDIS_URL": server.url}
    done = subprocess.run(
        [node, "submit.mjs"], cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout in ("SPEAKER_00\n", "SPEAKER_01\n"), done.stderr
