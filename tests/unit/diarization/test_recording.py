"""Which URLs name a recording, and that nothing secret of one is ever shown."""

from __future__ import annotations

import string
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from diarization.errors import InvalidJob, UrlNotAllowed
from diarization.recording import MAX_URL_CHARACTERS, Recording, parse_url, redact_url, scrub

SECRET_MARK = "5ecre7"  # stands in no scheme, host or path below
FORBIDDEN = "".join(map(chr, [*range(0x21), *range(0x7F, 0xA1)])) + "\u2028\u2029\ud800\udfff\\"

secrets = st.text(string.ascii_letters + string.digits + "-._~!$&'()*+,;=%", max_size=20).map(
    lambda text: SECRET_MARK + text + SECRET_MARK
)
hosts = st.sampled_from(["example.com", "EXAMPLE.com", "10.0.0.1", "[::1]", "[fe80::1%25eth0]", "bücher.example"])
paths = st.sampled_from(["", "/", "/a/b.wav", "/a%20b.wav", "/a@b.wav", "//a.wav", "/a;v=1", "/ü.wav"])


@settings(deadline=None)
@given(
    scheme=st.sampled_from(["http", "https", "HTTPS"]),
    user=st.none() | secrets,
    password=st.none() | secrets,
    host=hosts,
    port=st.none() | st.integers(1, 65535),
    path=paths,
    query=st.none() | secrets,
    fragment=st.none() | secrets,
)
def test_no_part_of_a_secret_is_shown(
    scheme: str,
    user: str | None,
    password: str | None,
    host: str,
    port: int | None,
    path: str,
    query: str | None,
    fragment: str | None,
) -> None:
    login = ("" if user is None else user) + ("" if password is None else f":{password}")
    server = (f"{login}@" if login else "") + host + (f":{port}" if port else "")
    url = f"{scheme}://{server}{path}"
    url += ("" if query is None else f"?{query}") + ("" if fragment is None else f"#{fragment}")
    recording = Recording(url, {"Authorization": f"Bearer {SECRET_MARK}"})
    for shown in (redact_url(url), str(recording), repr(recording), f"{recording}", f"{[recording]}"):
        assert SECRET_MARK not in shown
    assert redact_url(url) == f"{scheme.lower()}://{host.lower()}" + (f":{port}" if port else "") + path
    assert redact_url(redact_url(url)) == redact_url(url)
    said = f"cannot read {url}: {query}, {unquote(password or '')}, {user}, {unquote(fragment or '')}"
    assert SECRET_MARK not in scrub(said, Recording(url))


@settings(deadline=None)
@given(st.text(max_size=30), st.text(string.ascii_letters, max_size=5))
@example("http:\\\\", "")
@example("http:/", "")
@example("http:", "")
@example("", "")
@example("//", "")
@example("http:///", "")
@example("user:", "")
@example("http://host :80/", "")
def test_a_password_before_an_at_sign_is_not_shown_however_malformed_the_url(begin: str, user: str) -> None:
    assume("#" not in begin and "?" not in begin)
    slashes = begin.partition("//")[2]
    assume("/" not in slashes)  # behind host and slash an at sign is part of the path
    assert SECRET_MARK not in redact_url(f"{begin}{user}:{SECRET_MARK}@host/a.wav")


@settings(deadline=None)
@given(st.text(max_size=60) | st.text(max_size=30).map("http://h/".__add__))
def test_what_is_shown_is_one_line_that_can_be_printed(url: str) -> None:
    shown = redact_url(url)
    assert len(shown.splitlines()) == 1
    shown.encode()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://u:p@host:8443/a.wav?X-Amz-Signature=f00#t=10", "https://host:8443/a.wav"),
        ("https://u:p@[2001:db8::1]:8443/a.wav?x", "https://[2001:db8::1]:8443/a.wav"),
        ("file:///recordings/a%20b.wav", "file:///recordings/a%20b.wav"),
        ("file://localhost/a.wav", "file://localhost/a.wav"),
        ("http://host:port/a", "<malformed URL>"),
        ("http://[::1/a", "<malformed URL>"),
        ("not a URL", "<malformed URL>"),
    ],
)
def test_what_is_shown(url: str, shown: str) -> None:
    assert redact_url(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/a.wav",
        "https://user:pa%20ss@example.com:8443/a.wav?sig=a%2Fb&x=1#t",
        "HTTPS://EXAMPLE.COM/A.WAV",
        "https://[2001:db8::1]/a.wav",
        "https://bücher.example/ü.wav",
        "https://example.com",
        "file:///recordings/a%3Fb.wav",
        "file://localhost/recordings/a.wav",
        "bundled:canary",
    ],
)
def test_a_url_of_a_recording_passes_as_it_is(url: str) -> None:
    assert Recording(url).url == url
    assert parse_url(url) == urlsplit(url)


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("", "non-empty string"),
        (None, "non-empty string"),
        (b"http://example.com/", "non-empty string"),
        ("ftp://example.com/a.wav", "scheme 'ftp' is not one of http, https, file"),
        ("s3://bucket/a.wav", "scheme 's3'"),
        ("javascript:alert(1)", "scheme of this URL"),
        ("example.com/a.wav", "scheme of this URL"),
        ("//example.com/a.wav", "scheme of this URL"),
        ("/etc/passwd", "scheme of this URL"),
        ("data:audio/wav;base64,AAAA", "scheme of this URL"),
        ("http://", "no host"),
        ("http:///a.wav", "no host"),
        ("http:a.wav", "no host"),
        ("http://user:password@/a.wav", "no host"),
        ("http://:80/a.wav", "no host"),
        ("http://example.com:0/", "port 0"),
        ("http://example.com:65536/", "malformed"),
        ("http://example.com:eighty/", "malformed"),
        ("http://[::1/", "malformed"),
        ("http://[example.com]/", "malformed"),
        ("http://example.com\uff0fa/", "malformed"),
        ("file://example.com/a.wav", "must not name a host"),
        ("file://", "absolute path"),
        ("file:a.wav", "absolute path"),
        ("file:///a?b.wav", "absolute path"),
        ("file:///a#b.wav", "absolute path"),
        *(
            (f"bundled:{rest}", "bundled: and its name")
            for rest in ("", "//canary", "/canary", "../a", "a?b", "a#b", "A")
        ),
        ("http://example.com/" + "a" * MAX_URL_CHARACTERS, f"at most {MAX_URL_CHARACTERS}"),
    ],
)
def test_what_names_no_recording_is_refused(url: str, complaint: str) -> None:
    with pytest.raises(UrlNotAllowed, match=complaint):
        Recording(url)


@pytest.mark.parametrize("character", FORBIDDEN, ids=lambda character: f"{ord(character):x}")
def test_characters_that_would_be_read_as_something_else_are_refused(character: str) -> None:
    for url in (f"http://example.com/a{character}b", f"{character}http://example.com/", f"http://a{character}b/"):
        with pytest.raises(UrlNotAllowed, match="percent-encode"):
            parse_url(url)


@settings(deadline=None)
@given(st.text(max_size=40) | st.text(max_size=20).map("http://".__add__) | st.text(max_size=20).map("file:".__add__))
def test_any_text_is_a_recording_or_not_allowed(url: str) -> None:
    try:
        recording = Recording(url)
    except UrlNotAllowed:
        return
    assert str(recording) != "<malformed URL>"


@pytest.mark.parametrize(
    "url",
    [
        f"{SECRET_MARK}:pw@host/a.wav",
        f"user:{SECRET_MARK}@host/a.wav",
        f"ftp://user:{SECRET_MARK}@host/a.wav?{SECRET_MARK}",
        f"http://user:{SECRET_MARK}@host:x/a.wav",
        f"http://user:{SECRET_MARK}#@host/a.wav",
        f"http:\\\\user:{SECRET_MARK}@host/a.wav",
        f"file://user:{SECRET_MARK}@localhost/a.wav",
        f"file:///a.wav?{SECRET_MARK}",
    ],
)
def test_a_refusal_repeats_no_secret(url: str) -> None:
    with pytest.raises(UrlNotAllowed) as caught:
        parse_url(url)
    assert SECRET_MARK not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "said",
    [
        "GET https://u:p%40ssword@host/a.wav?sig=ab%2Fcdefgh&v=1#frag",
        "auth ('u', 'p@ssword')",
        "/a.wav?sig=ab%2Fcdefgh&v=1 timed out",
        "{'sig': 'ab/cdefgh'}",
        "header 'Bearer tok123'",
        "invalid token tok123",
    ],
)
def test_an_error_of_a_foreign_library_is_scrubbed(said: str) -> None:
    recording = Recording(
        "https://u:p%40ssword@host/a.wav?sig=ab%2Fcdefgh&v=1#frag", {"Authorization": "Bearer tok123"}
    )
    scrubbed = scrub(said, recording)
    assert not [secret for secret in ("ssword", "cdefgh", "frag", "tok123") if secret in scrubbed]


def test_scrubbing_leaves_the_rest_alone() -> None:
    recording = Recording("https://host/a.wav?page=1", {"X-Odd": "\xe9"})
    assert scrub("attempt 1 of 11 failed for https://host/a.wav?page=1", recording) == (
        "attempt 1 of 11 failed for https://host/a.wav"
    )


@pytest.mark.parametrize(
    "headers",
    [
        {"X-A": "s3cret\r\nHost: other"},
        {"X-A": "s3cret\n"},
        {"X-A": "s3cret\0"},
        {"X-A": "s3cret€"},
        {"X-A: s3cret": "a"},
        {"": "s3cret"},
        {"Host": "s3cret"},
        {"content-length": "5"},
        {"Range": "bytes=5-"},
        {"Accept-Encoding": "gzip"},
    ],
)
def test_headers_that_cannot_be_sent(headers: dict[str, str]) -> None:
    with pytest.raises(InvalidJob) as caught:
        Recording("http://example.com/a.wav", headers)
    assert "s3cret" not in str(caught.value)
