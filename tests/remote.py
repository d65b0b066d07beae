"""A client of the emulated endpoint, as plain as the guide's."""

from __future__ import annotations

from typing import Any

import requests

from tests.emulator import Emulator
from tests.emulator.endpoint import FINAL
from tests.processes import wait_until

STAND_IN = "http://user:CANARY-password@stand.in/{}?X-Signature=CANARY-query"
TIMEOUT_SECONDS = 10


def post(emulator: Emulator, operation: str, body: Any = None, **query: Any) -> requests.Response:
    url = f"{emulator.endpoint_url}/{operation}"
    return requests.post(url, json=body, params=query, headers=emulator.headers, timeout=TIMEOUT_SECONDS)


def get(emulator: Emulator, operation: str) -> requests.Response:
    return requests.get(f"{emulator.endpoint_url}/{operation}", headers=emulator.headers, timeout=TIMEOUT_SECONDS)


def submit(emulator: Emulator, script: str, *, policy: dict[str, int] | None = None, **job_input: Any) -> str:
    """Submit a job for the stand-in that does as `script` says; its id."""
    return submit_url(emulator, STAND_IN.format(script), policy=policy, **job_input)


def submit_url(emulator: Emulator, url: str, *, policy: dict[str, int] | None = None, **job_input: Any) -> str:
    """Submit a job for the recording at `url`; its id."""
    wanted = {"task": "diarization", "audio_url": url, **job_input}
    answer = post(emulator, "run", {"input": wanted} | ({"policy": policy} if policy else {}))
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def status(emulator: Emulator, job_id: str) -> dict[str, Any]:
    answer = get(emulator, f"status/{job_id}")
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def wait(emulator: Emulator, job_id: str, *states: str) -> dict[str, Any]:
    """The job's status once it is one of `states`; without any, once it has ended."""
    wanted = states or tuple(FINAL)

    def told() -> dict[str, Any]:
        said = status(emulator, job_id)
        return said if said["status"] in wanted else {}

    return wait_until(told, what=f"{job_id} is {' or '.join(wanted)}: {emulator.log()}")
