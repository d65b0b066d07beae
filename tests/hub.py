"""A model hub on loopback that answers as huggingface.co does, error headers included."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.servers import LOOPBACK, in_thread

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_a_token_that_the_hub_knows"


@dataclass
class Hub:
    """Repositories by name, files by path; `gated` ones ask for consent that nobody gave."""

    files: dict[str, dict[str, bytes]]
    gated: set[str] = field(default_factory=set)
    forbidden: set[str] = field(default_factory=set)
    url: str = ""

    def refusal(self, repository: str, file: str, authorization: str | None) -> tuple[int, str, str] | None:
        """Status, X-Error-Code and X-Error-Message, as the real hub sends them."""
        if authorization not in (None, f"Bearer {TOKEN}"):
            return 401, "", "Invalid credentials in Authorization header"
        if repository in self.gated:
            return 403 if authorization else 401, "GatedRepo", f"Access to model {repository} is restricted."
        if repository in self.forbidden:
            return 403, "", "Please enable access to public gated repositories in your fine-grained token settings."
        if repository not in self.files:
            return 404 if authorization else 401, "RepoNotFound", "Repository not found"
        if file not in self.files[repository]:
            return 404, "EntryNotFound", "Entry not found"
        return None


class Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        match = re.fullmatch(r"/(?P<repository>[^/]+/[^/]+)/resolve/[^/]+/(?P<file>.+)", self.path)
        if match is None:
            self.send_error(404)
            return
        refusal = self.hub.refusal(match["repository"], match["file"], self.headers.get("Authorization"))
        content = b"" if refusal else self.hub.files[match["repository"]][match["file"]]
        self.send_response(refusal[0] if refusal else 200)
        if refusal:
            self.send_header("X-Error-Code", refusal[1])
            self.send_header("X-Error-Message", refusal[2])
        else:
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the tests look at what the client says."""


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """The hub, on loopback; HF_ENDPOINT is to be its `url`."""
    handler = type("HubHandler", (Handler,), {"hub": hub})
    with ThreadingHTTPServer((LOOPBACK, 0), handler) as server, in_thread(server):
        hub.url = f"http://{LOOPBACK}:{server.server_port}"
        yield hub
