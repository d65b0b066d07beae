"""Flower's pages as a person sees them: a real Chromium, a real Flower, real workers. `make test-flower`.

SCREENSHOTS=1 writes the pictures of docs/flower.md anew.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect
from redis import Redis

from diarization.errors import RecordingNotFound
from tasks.diarize import diarize
from tests.browser import Visit
from tests.monitored import RunningFlower, running_flower
from tests.processes import ROOT, Worker

URL = "http://user:CANARY-password@rec.example/{}?X-Signature=CANARY-query"


# Of a job that runs, of a job that waits, of a worker, of its pool, of its queues.
CONTROLS = "#task-terminate, #task-revoke, #worker-group, #worker-pool-grow, [id^=worker-cancel-consumer]"


@pytest.fixture
def flower(redis: Redis, tmp_path: Path) -> Iterator[RunningFlower]:
    with running_flower(tmp_path / "flower.log") as running:
        yield running


def test_who_has_no_password_sees_nothing(flower: RunningFlower, visit: Visit) -> None:
    page = visit(flower.url + "/tasks", password="wrong-password")
    assert "a user and a password are needed" in page.content()
    assert page.locator("#tasks-table").count() == 0


def test_jobs_from_the_queue_to_their_ends(
    flower: RunningFlower, visit: Visit, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    for name in ("gpu0", "gpu1"):
        start_worker(options=("-n", f"{name}@gpubox"), ready=False, RUNPOD_API_KEY="CANARY-key")
    page = visit(flower.url + "/workers")
    elsewhere: list[str] = []
    page.on("request", lambda request: elsewhere.append(request.url) if flower.url not in request.url else None)
    for name in ("gpu0", "gpu1"):
        row = page.locator("#workers-table tbody tr", has_text=f"{name}@gpubox")
        expect(row.get_by_text("Online")).to_be_visible(timeout=60_000)

    running = diarize.delay(URL.format("wait/end/council-2026-11-24.mp3"))
    done = diarize.delay(URL.format("turns/60/3/planning-board.mp3"), num_speakers=3)
    failed = diarize.delay(URL.format("fail/recording_not_found/deleted.mp3"))
    done.get(timeout=30)
    with pytest.raises(RecordingNotFound):
        failed.get(timeout=30)
    page.goto(flower.url + "/tasks")
    _row(page, running.id, "STARTED", "council-2026-11-24.mp3")
    _row(page, done.id, "SUCCESS", "planning-board.mp3")
    _row(page, failed.id, "FAILURE", "RecordingNotFound")
    _picture(page, "tasks")

    (tmp_path / "end").touch()
    running.get(timeout=30)
    page.reload()
    _row(page, running.id, "SUCCESS", "council-2026-11-24.mp3")

    page.goto(flower.url + "/workers")
    expect(page.locator("#workers-succeeded")).to_have_text("2", timeout=30_000)
    _picture(page, "workers")
    for path in ("/workers", "/tasks", "/broker", "/worker/gpu0@gpubox", f"/task/{failed.id}", f"/task/{done.id}"):
        page.goto(flower.url + path)
        page.wait_for_load_state("networkidle")
        assert "CANARY" not in page.content(), path
        assert page.locator(CONTROLS).count() == 0, path
    assert elsewhere == []


def _row(page: Page, job_id: str, *texts: str) -> None:
    for text in texts:
        expect(page.locator(f'#tasks-table tr[id="{job_id}"]')).to_contain_text(
            re.compile(re.escape(text)), timeout=20_000
        )


def _picture(page: Page, name: str) -> None:
    if os.environ.get("SCREENSHOTS"):
        path = ROOT / "docs" / f"flower-{name}.png"
        page.screenshot(path=path)
        Image.open(path).convert("P", palette=Image.Palette.ADAPTIVE, colors=128).save(path, optimize=True)


def test_the_controls_are_there_where_they_are_allowed(
    redis: Redis, visit: Visit, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    """Else their absence would show nothing."""
    with running_flower(tmp_path / "log", FLOWER_ALLOW_CONTROL="true") as flower:
        start_worker()
        page = visit(flower.url + "/workers")
        page.get_by_role("link", name="w0@test").click()
        expect(page.locator("#worker-group")).to_be_visible()
        assert page.locator(CONTROLS).count() > 2
