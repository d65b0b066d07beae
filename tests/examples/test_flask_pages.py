"""The Flask example's pages as a person sees them, in a real Chromium: `make test-examples`.

Their own policy forbids to evaluate strings, so nothing here waits by a function. SCREENSHOTS=1 renews
docs/flask-app.png.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import soundfile
from PIL import Image
from playwright.sync_api import Page, expect
from redis import Redis

from benchmarks.make_meeting import POOL, SAMPLE_RATE, mix
from diarization.scoring import read_rttm
from tasks.record import State
from tasks.valkey import EmbeddedValkey
from tests.browser import Visit
from tests.flask_app import RunningApp, running_app
from tests.jobs import record
from tests.processes import ROOT, Worker
from tests.servers import free_port, serve

SAMPLE = ROOT / "recordings" / "sample" / "sample.wav"
PHONE = {"viewport": {"width": 390, "height": 844}}
SLOW = 60_000
"""Milliseconds that nothing here takes."""


@pytest.fixture
def settings(redis: Redis, tmp_path: Path) -> dict[str, Any]:
    """Of an app whose uploads are jobs that the stand-in works on until the file `end` is there."""
    link = {"FLASK_PUBLIC_URL": "http://stand.in/wait/end", "FLASK_SECRET_KEY": "CANARY-flask-secret"}
    return {"DIARIZATION_RECORDINGS_DIR": tmp_path / "recordings", "FLASK_MAX_CONTENT_LENGTH": 2_000_000, **link}


def upload(page: Page, name: str, data: bytes) -> None:
    page.set_input_files("[type=file]", {"name": name, "mimeType": "audio/wav", "buffer": data})
    page.click("button.primary")


def shown(page: Page) -> str:
    """The id of the job whose page it is."""
    page.wait_for_url("**/jobs/*")
    return page.url.rpartition("/")[2]


def at_seconds(page: Page) -> float:
    page.evaluate("document.querySelector('audio').pause()")
    return float(page.evaluate("document.querySelector('audio').currentTime"))


@pytest.mark.model
def test_from_the_upload_to_the_turns(real_app: RunningApp, visit: Visit, tmp_path: Path) -> None:
    page = visit(real_app.url)
    elsewhere: list[str] = []
    page.on("request", lambda request: elsewhere.append(request.url) if real_app.url not in request.url else None)
    upload(page, "Town hall.wav", SAMPLE.read_bytes())
    expect(page.locator("h1")).to_have_text("Town_hall.wav")
    expect(page.locator("#text")).to_have_text(re.compile(r"Compare voices, \d+ %"), timeout=SLOW)
    page.reload()  # the page finds its job again
    expect(page.locator("#turns li").first).to_be_visible(timeout=SLOW)
    expect(page.locator("#summary")).to_have_text(re.compile(r"2 speakers · \d+ turns · 30\.0 s"))
    expect(page.locator("#progress")).to_be_hidden()

    # A click on a turn seeks to its start, who speaks then is marked, and the playhead goes along.
    turns = real_app.get(f"/jobs/{shown(page)}/result.json").json()["segments"]
    longest = max(turns, key=lambda turn: float(turn["end"] - turn["start"]))
    in_rows = sorted(turns, key=lambda turn: str(turn["speaker"]))
    page.locator("#timeline .turn").nth(in_rows.index(longest)).click()
    expect(page.locator("#timeline .turn.speaking").first).to_be_visible()
    expect(page.locator("#turns .speaking").first).to_contain_text(longest["speaker"])
    expect(page.locator("#now")).to_contain_text(longest["speaker"])
    assert longest["start"] <= (now := at_seconds(page)) < longest["end"]
    playhead = page.evaluate("document.querySelector('#timeline').style.getPropertyValue('--at')")
    assert float(playhead) == pytest.approx(now / 30.0, abs=0.02)
    page.locator("#turns button").nth(8).click()
    assert turns[8]["start"] <= at_seconds(page) < turns[8]["start"] + 3

    page.get_by_label("Name of SPEAKER_00").fill("<i>Diane</i>")
    page.get_by_label("Name of SPEAKER_01").fill("Sheila")
    page.keyboard.press("Enter")
    expect(page.locator("#turns li", has_text="Sheila").first).to_be_visible()
    page.reload()
    expect(page.locator("#turns li", has_text="<i>Diane</i>").first).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="RTTM").click()
    assert download.value.suggested_filename == "Town_hall.rttm"
    download.value.save_as(tmp_path / "turns.rttm")
    assert {turn.speaker for turn in read_rttm(tmp_path / "turns.rttm")} == {"<i>Diane</i>", "Sheila"}

    page.get_by_label("Zoom in").click(click_count=1)
    width = "document.querySelector('#timeline .row').clientWidth / document.querySelector('#timeline').clientWidth"
    assert float(page.evaluate(width)) > 1.5
    for look in (PHONE, {"color_scheme": "dark"}, {"color_scheme": "dark", **PHONE}):
        other = visit(page.url, **look)
        expect(other.locator("#turns li").first).to_be_visible()
        assert other.evaluate("document.documentElement.scrollWidth <= innerWidth"), look
    assert elsewhere == []


def test_what_cannot_be_sent_is_told_beside_the_form(settings: dict[str, Any], visit: Visit, tmp_path: Path) -> None:
    with running_app(tmp_path / "log", **settings) as app:
        page = visit(app.url)
        for name, data, says in [
            ("empty.wav", b"", "empty.wav is empty."),
            ("minutes.txt", b"text", "minutes.txt is none of the files"),
            ("long.wav", bytes(3_000_000), "This file has more than 2 MB."),
        ]:
            upload(page, name, data)
            expect(page.get_by_role("alert")).to_contain_text(says)
            assert page.url == app.url + "/"
        assert not (tmp_path / "recordings").exists() or not list((tmp_path / "recordings").iterdir())
        upload(page, "good.wav", b"RIFF")
        expect(page.locator("#text")).to_have_text("Next in line")
        expect(page.locator("#details")).to_contain_text("no worker takes jobs at the moment")
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator("#text")).to_have_text("Cancelled")
        assert record(shown(page)).state is State.CANCELLED


def test_whatever_goes_away_comes_back(
    settings: dict[str, Any],
    visit: Visit,
    server: EmbeddedValkey,
    start_worker: Callable[..., Worker],
    tmp_path: Path,
) -> None:
    """Redis, then the app itself, then the worker by kill -9, while the page asks."""
    port = free_port()
    with running_app(tmp_path / "log", port=port, **settings) as app:
        page = visit(app.url)
        upload(page, "a.wav", b"RIFF")
        expect(page.locator("#text")).to_have_text("Next in line")
        server.kill()
        try:
            expect(page.locator("#details")).to_contain_text("The queue does not answer at the moment.", timeout=SLOW)
        finally:
            server.start()
        expect(page.locator("#details")).to_contain_text("keeps its place", timeout=SLOW)
    expect(page.locator("#details")).to_contain_text("The server does not answer. Still trying", timeout=SLOW)
    with running_app(tmp_path / "log", port=port, **settings):
        worker = start_worker(QUEUE_LEASE_SECONDS=4)
        expect(page.locator("#text")).to_have_text("Find speech …", timeout=SLOW)
        worker.kill()
        start_worker(QUEUE_LEASE_SECONDS=4)
        expect(page.locator("#details")).to_contain_text("its worker was lost, so it starts anew", timeout=SLOW)
        assert record(shown(page)).attempts == 2
        (tmp_path / "end").touch()
        expect(page.locator("#turns li").first).to_be_visible(timeout=SLOW)


def test_a_job_that_is_forgotten_while_the_page_asks(
    settings: dict[str, Any], visit: Visit, redis: Redis, tmp_path: Path
) -> None:
    with running_app(tmp_path / "log", **settings) as app:
        page = visit(app.url)
        upload(page, "a.wav", b"RIFF")
        expect(page.locator("#text")).to_have_text("Next in line")
        redis.flushall()
        expect(page.locator("#text")).to_contain_text("There is no such job.", timeout=SLOW)


def test_an_error_is_shown_with_its_advice(
    settings: dict[str, Any], visit: Visit, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    start_worker()
    failing = {**settings, "FLASK_PUBLIC_URL": "http://stand.in/fail/recording_too_long"}
    with running_app(tmp_path / "log", **failing) as app:
        page = visit(app.url)
        upload(page, "a.wav", b"RIFF")
        expect(page.locator("#text")).to_have_text("This did not work")
        expect(page.locator("#problem")).to_contain_text("Split the recording")
        page.get_by_role("button", name="Delete recording and result").click()
        page.wait_for_url(app.url + "/")
        assert list((tmp_path / "recordings").iterdir()) == []


def test_an_hour_of_many_speakers_and_a_silence(
    settings: dict[str, Any], visit: Visit, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    start_worker()
    with running_app(tmp_path / "log", **{**settings, "FLASK_PUBLIC_URL": "http://stand.in/turns/3600/12"}) as app:
        page = visit(app.url, **PHONE)
        upload(page, "a.wav", b"RIFF")
        expect(page.locator("#summary")).to_contain_text("1:00:00 h")
        expect(page.locator("#timeline .who input")).to_have_count(12)
        assert page.locator("#turns li").count() > 500
        for _ in range(12):
            page.get_by_label("Zoom in").click()
        wide = "document.querySelector('#timeline .row').clientWidth / document.querySelector('#timeline').clientWidth"
        assert float(page.evaluate(wide)) == 256  # a quarter of a minute on the screen, and no further
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        expect(page.locator("#now")).to_have_text("The recording was deleted, or this browser cannot play it.")
    with running_app(tmp_path / "log", **{**settings, "FLASK_PUBLIC_URL": "http://stand.in/turns/30/0"}) as app:
        page = visit(app.url)
        upload(page, "a.wav", b"RIFF")
        expect(page.locator("#timeline")).to_have_text("Nobody speaks in this recording.")


def test_a_page_of_another_site_can_send_no_form(settings: dict[str, Any], visit: Visit, tmp_path: Path) -> None:
    with running_app(tmp_path / "log", **settings) as app:
        job = app.submit("a.wav", b"RIFF")

        def trap(request: BaseHTTPRequestHandler) -> None:
            request.send_response(200)
            request.send_header("Content-Type", "text/html")
            request.end_headers()
            form = f'<form method="post" action="{app.url}{job}/cancel"><button>You have won</button></form>'
            request.wfile.write(form.encode())

        with serve(trap) as site:
            page = visit(site.url)
            page.get_by_role("button").click()
            expect(page.locator("h1")).to_have_text("This form was sent by another site.")
        assert record(job.rpartition("/")[2]).state is State.QUEUED


@pytest.mark.skipif(not os.environ.get("SCREENSHOTS"), reason="SCREENSHOTS=1 renews docs/flask-app.png")
@pytest.mark.timeout(600)
@pytest.mark.model
def test_the_picture_of_the_docs(real_app: RunningApp, visit: Visit, tmp_path: Path) -> None:
    """A meeting of four minutes, mixed from LibriSpeech, its speakers named by their readers."""
    waveform, reference = mix(4, 5, seed=3, overlap=0.12, snr_db=30)
    soundfile.write(tmp_path / "meeting.wav", waveform, SAMPLE_RATE, subtype="PCM_16")
    page = visit(real_app.url, viewport={"width": 1200, "height": 700}, device_scale_factor=2)
    upload(page, "council-meeting.wav", (tmp_path / "meeting.wav").read_bytes())
    expect(page.locator("#turns li").first).to_be_visible(timeout=500_000)
    found = real_app.get(f"/jobs/{shown(page)}/result.json").json()
    for speaker in found["speakers"]:
        page.get_by_label(f"Name of {speaker['speaker']}").fill(
            reader(speaker["speaker"], found["segments"], reference)
        )
        page.keyboard.press("Enter")
    page.locator("#turns button").nth(3).click()
    expect(page.locator("#timeline .turn.speaking").first).to_be_visible()
    at_seconds(page)
    page.locator("h1").click()
    path = ROOT / "docs" / "flask-app.png"
    page.screenshot(path=path)
    Image.open(path).convert("P", palette=Image.Palette.ADAPTIVE, colors=128).save(path, optimize=True)


def reader(label: str, segments: list[dict[str, Any]], reference: list[tuple[float, float, str]]) -> str:
    """Who reads most of what is this speaker's."""
    shared: Counter[str] = Counter()
    for segment in (segment for segment in segments if segment["speaker"] == label):
        for start, end, name in reference:
            shared[name] += round(1000 * max(0.0, min(end, segment["end"]) - max(start, segment["start"])))
    lines = (line.split("|") for line in (POOL / "SPEAKERS.TXT").read_text().splitlines() if "|" in line)
    names = {fields[0].strip(): fields[-1].strip() for fields in lines}
    return names[shared.most_common(1)[0][0]]
