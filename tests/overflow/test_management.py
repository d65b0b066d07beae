"""What RunPod's management API says of an endpoint, whatever it answers."""

from __future__ import annotations

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

import pytest

from tasks.runpod.api import RunPodManagement
from tests.servers import free_port, serve


def says(body: str, status: int = 200) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body.encode())

    return answer


def test_it_is_asked_for_the_endpoint_with_the_key() -> None:
    with serve(says('{"id": "ep", "workers": {"min": 0, "max": 3}}')) as site:
        assert RunPodManagement(f"{site.url}/v2/", "the-key").max_workers("ep") == 3
    (request,) = site.requests
    assert request.path == "/v2/serverless/ep"
    assert request.headers["authorization"] == "Bearer the-key"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ('{"error": "forbidden"}', 403),
        ('{"workers": {"max": 3}}', 500),
        ("<html>", 200),
        ("[]", 200),
        ("{}", 200),
        ('{"workers": 3}', 200),
        ('{"workers": {"max": "3"}}', 200),
        ('{"workers": {"max": true}}', 200),
    ],
)
def test_what_it_does_not_say_is_not_known(body: str, status: int) -> None:
    with serve(says(body, status)) as site:
        assert RunPodManagement(site.url, "the-key").max_workers("ep") is None


def test_where_nobody_listens_nothing_is_known() -> None:
    assert RunPodManagement(f"http://127.0.0.1:{free_port()}", "the-key").max_workers("ep") is None
