"""What `submit` is given becomes URLs: all of them, or an error that says which one cannot."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest

from diarization.download import download
from diarization.errors import InvalidJob, UrlNotAllowed
from diarization.recording import Recording
from tasks.commands.given import Given, checked_urls, file_url, read_given
from tasks.settings import Settings

URL = "https://host/a.mp3"


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """The folder that workers read, with a recording whose name needs care."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    (folder / "a b?#%é.wav").write_bytes(b"RIFF")
    return folder


def given_on_stdin(monkeypatch: pytest.MonkeyPatch, text: str, *arguments: str) -> list[Given]:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    return read_given(arguments or ("-",))


def as_the_worker_reads(url: str, folder: Path) -> bytes:
    limits = {"max_bytes": 100, "timeout_seconds": 5, "stall_timeout_seconds": 5}
    with download(Recording(url), recordings_dir=folder, report=lambda *_: None, **limits) as path:
        return path.read_bytes()


def test_a_list_is_its_lines_without_comments_and_each_knows_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"\ufeff# of Monday\r\n\r\n  {URL}#t=5 \r\n # more\nmeeting one.wav"
    assert given_on_stdin(monkeypatch, text) == [Given(URL + "#t=5", "line 3"), Given("meeting one.wav", "line 5")]


def test_a_list_may_stand_among_others_and_one_alone_has_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    assert given_on_stdin(monkeypatch, "b\n", "a", "-") == [Given("a", "recording 1 of 2"), Given("b", "line 1")]
    assert read_given(["a"]) == [Given("a")]
    monkeypatch.setattr(sys, "stdin", None)
    assert read_given(["-"]) == [], "closed"


def test_a_list_in_any_encoding_is_read(monkeypatch: pytest.MonkeyPatch, shelf: Path) -> None:
    latin = b"caf\xe9.wav"
    (Path(str(shelf).encode().decode()) / latin.decode(errors="surrogateescape")).write_bytes(b"RIFF")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(bytes(shelf) + b"/" + latin), encoding="utf-8"))
    (one,) = read_given(["-"])
    assert file_url(one.name, shelf).endswith("/caf%E9.wav")


@pytest.mark.parametrize(
    ("names", "options", "error", "says"),
    [
        (
            [URL, "ftp://h/a?sig=CANARY"],
            {},
            UrlNotAllowed,
            "line 2: scheme 'ftp' is not one of .*nothing was submitted",
        ),
        ([URL, "CANARY:x@h/a"], {}, InvalidJob, "line 2: this is no URL"),
        ([URL, "h/a?sig=CANARY"], {}, InvalidJob, "line 2: this is no URL"),
        ([URL, "a\0b"], {}, InvalidJob, "line 2: neither a URL"),
        ([URL, "/no such/file.wav"], {}, InvalidJob, "line 2: /no such/file.wav is no URL, .*and no file here"),
        ([URL, "http://127.0.0.1/a"], {"provider": "runpod"}, UrlNotAllowed, "line 2: RunPod cannot fetch"),
        ([URL, URL], {"num_speakers": 0}, InvalidJob, "^num_speakers: "),
    ],
)
def test_one_that_cannot_be_is_named_by_its_line_and_no_secret_is_said(
    names: list[str], options: dict[str, Any], error: type[Exception], says: str
) -> None:
    given = [Given(name, f"line {number}") for number, name in enumerate(names, 1)]
    with pytest.raises(error, match=says) as raised:
        checked_urls(given, options, Settings())
    assert "CANARY" not in str(raised.value)


def test_a_file_in_the_folder_is_what_the_worker_reads(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shelf)
    settings = Settings(diarization_recordings_dir=shelf)
    (url,) = checked_urls([Given("a b?#%é.wav")], {}, settings)
    assert as_the_worker_reads(url, shelf) == b"RIFF"


def test_a_folder_that_is_a_link_here_is_named_as_the_setting_has_it(shelf: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(shelf)
    (shelf / "x.wav").write_bytes(b"RIFF")
    assert file_url(str(shelf / "x.wav"), tmp_path / "link") == f"file://{tmp_path}/link/x.wav"
    assert file_url(str(tmp_path / "link" / "x.wav"), shelf) == f"file://{shelf}/x.wav"


def test_what_the_worker_would_refuse_is_refused_here(shelf: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.wav"
    outside.write_bytes(b"RIFF")
    (shelf / "leads out.wav").symlink_to(outside)
    (shelf / "round.wav").symlink_to(shelf / "round.wav")
    for name in (outside, shelf / "leads out.wav", shelf / ".." / "outside.wav"):
        with pytest.raises(InvalidJob, match=f"lies outside {shelf}, the folder of DIARIZATION_RECORDINGS_DIR.*copy"):
            file_url(str(name), shelf)
    with pytest.raises(UrlNotAllowed, match="not below"):
        as_the_worker_reads(f"file://{shelf}/leads%20out.wav", shelf)
    with pytest.raises(InvalidJob, match=r"no URL|neither a URL"):
        file_url(str(shelf / "round.wav"), shelf)
    with pytest.raises(InvalidJob, match=r"is no file: name recordings, such as .*/shelf/\*\.wav"):
        file_url(str(shelf), shelf)


def test_without_a_shared_folder_it_says_what_to_do(shelf: Path) -> None:
    with pytest.raises(InvalidJob, match="set DIARIZATION_RECORDINGS_DIR, here and for the workers"):
        file_url(str(shelf / "a b?#%é.wav"), None)
