"""RunPod's two APIs over HTTP, of jobs and of management: what was answered, and what that means. It decides nothing.

Sources: https://docs.runpod.io/serverless/endpoints/operation-reference, https://docs.runpod.io/api-reference-v2. What
is in doubt there is read cautiously: only a status that says that a job was not accepted is taken for a refusal.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import Enum
from ssl import SSLCertVerificationError
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError, NewConnectionError, SSLError

from tasks.settings import Settings

CONNECT_SECONDS, READ_SECONDS = 3.05, 15.0
WHOLE_SECONDS = 60.0
"""For a whole answer: the read timeout is for each piece, and a body may drip."""
MAX_ANSWER_BYTES = 32 * 1024**2
"""RunPod carries results of 10 to 20 MB."""
LONGEST_RETRY_AFTER_SECONDS = 300.0

REFUSED = frozenset({400, 401, 403, 404, 413, 429})
"""Statuses of a submission that was not accepted. Whether one that was answered by 5xx was accepted, nobody says."""


class Kind(Enum):
    """What an answer means."""

    OK = "ok"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    """Nothing was sent."""
    UNCLEAR = "unclear"
    """What was asked for may have been done."""


@dataclass(frozen=True)
class Answer:
    """What came of a request.

    Attributes:
        kind: What it means.
        status: HTTP's, where there was one.
        body: The JSON object that was answered, where it was one.
        says: For people, without a word of RunPod's own.
        detail: What RunPod said is wrong. It may repeat the request, secrets and all.
        retry_after_seconds: Where the server asked for it.
    """

    kind: Kind
    status: int | None = None
    body: Mapping[str, Any] | None = None
    says: str = ""
    detail: str = ""
    retry_after_seconds: float | None = None


class _Api:
    """One of RunPod's, as one key sees it. Each thread has a session of its own, made when it first asks."""

    def __init__(self, root: str, api_key: str) -> None:
        self._root = root
        self._key = api_key
        self._own = threading.local()

    def _ask(self, method: str, operation: str, body: Mapping[str, Any] | None = None) -> Answer:
        deadline = time.monotonic() + WHOLE_SECONDS
        try:
            with self._session.request(
                method,
                f"{self._root}/{operation}",
                json=body,
                timeout=(CONNECT_SECONDS, READ_SECONDS),
                allow_redirects=False,
                stream=True,
            ) as response:
                return _read(response, deadline, self._key)
        except requests.ConnectTimeout:
            return Answer(Kind.UNREACHABLE, says="no connection within 3 s")
        except requests.ConnectionError as error:
            reason = getattr(error.args[0], "reason", None) if error.args else None
            if isinstance(reason, NewConnectionError) or _is_untrusted(reason):
                return Answer(Kind.UNREACHABLE, says=f"no connection ({type(reason).__name__})")
            return Answer(Kind.UNCLEAR, says="the connection broke")
        except requests.Timeout:
            return Answer(Kind.UNCLEAR, says="no answer in time")
        except (requests.RequestException, HTTPError, OSError) as error:
            return Answer(Kind.UNCLEAR, says=f"the answer broke off ({type(error).__name__})")

    @property
    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._own, "session", None)
        if session is None:
            session = self._own.session = requests.Session()
            session.trust_env = False  # neither a proxy nor a .netrc may see the key
            session.headers["Authorization"] = f"Bearer {self._key}"
            session.headers["User-Agent"] = "diarize-queue"
            # No retries below: a repeated POST is a second job, and a repeated GET is the poll's own business.
            for scheme in ("https://", "http://"):
                session.mount(scheme, HTTPAdapter(max_retries=0))
        return session


class RunPodApi(_Api):
    """The jobs of one endpoint."""

    def __init__(self, base_url: str, endpoint_id: str, api_key: str) -> None:
        super().__init__(f"{base_url.rstrip('/')}/{endpoint_id}", api_key)

    def run(self, body: Mapping[str, Any]) -> Answer:
        """Submit a job, by one request: there is no way to submit it twice and have it done once."""
        return self._ask("POST", "run", body)

    def status(self, run_id: str) -> Answer:
        """How a job stands."""
        return self._ask("GET", f"status/{run_id}")

    def cancel(self, run_id: str) -> Answer:
        """Have a job stopped. What has ended stays as it is."""
        return self._ask("POST", f"cancel/{run_id}")

    def health(self) -> Answer:
        """Jobs and workers of the endpoint, by state."""
        return self._ask("GET", "health")


class RunPodManagement(_Api):
    """What an account has set up: another service than that of its jobs."""

    def __init__(self, base_url: str, api_key: str) -> None:
        super().__init__(base_url.rstrip("/"), api_key)

    def max_workers(self, endpoint_id: str) -> int | None:
        """How many workers an endpoint may have; None where RunPod does not say, as to a key made for jobs alone."""
        answer = self._ask("GET", f"serverless/{endpoint_id}")
        workers = answer.body.get("workers") if answer.kind is Kind.OK and answer.body else None
        most = workers.get("max") if isinstance(workers, dict) else None
        return most if isinstance(most, int) and not isinstance(most, bool) and most >= 0 else None


def max_workers(settings: Settings) -> int | None:
    """How many workers the endpoint of the settings may have; None where there is none, or RunPod does not say."""
    key, endpoint_id = settings.runpod_api_key, settings.runpod_endpoint_id
    if key is None or endpoint_id is None:
        return None
    management = RunPodManagement(settings.runpod_management_base_url, key.get_secret_value())
    return management.max_workers(endpoint_id)


def _is_untrusted(reason: Any) -> bool:
    """Whether the server's certificate was refused. Any other error of TLS may come after the request was read."""
    causes = (getattr(reason, "__cause__", None), getattr(reason, "__context__", None), *getattr(reason, "args", ()))
    return isinstance(reason, SSLError) and any(isinstance(one, SSLCertVerificationError) for one in causes)


def _read(response: requests.Response, deadline: float, key: str) -> Answer:
    status, raw = response.status_code, bytearray()
    # By `read1`, because `iter_content` waits until a piece is full, however long that drips.
    while piece := response.raw.read1(65536, decode_content=True):
        raw += piece
        if len(raw) > MAX_ANSWER_BYTES or time.monotonic() > deadline:
            return Answer(Kind.UNCLEAR, status, says=f"HTTP {status} with an answer that does not end")
    try:
        body = json.loads(bytes(raw).replace(key.encode(), b"..."))  # should it repeat the request
    except (ValueError, RecursionError):
        body = None
    body = body if isinstance(body, dict) else None
    if status == 200:
        kind = Kind.OK if body is not None else Kind.UNCLEAR
    else:
        kind = Kind.REFUSED if status in REFUSED else Kind.UNCLEAR
    why = body.get("error") if body is not None else None
    return Answer(
        kind,
        status,
        body,
        says=f"HTTP {status}" if body is not None else f"HTTP {status}, and no JSON",
        detail=" ".join(why.split()) if isinstance(why, str) else "",
        retry_after_seconds=_retry_after(response.headers.get("Retry-After")),
    )


def _retry_after(header: str | None) -> float | None:
    """Seconds, from a number of them or a date; never more than five minutes."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - time.time()
        except ValueError:
            return None
    return min(LONGEST_RETRY_AFTER_SECONDS, max(1.0, seconds))
