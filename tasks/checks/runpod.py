"""Whether RunPod works for us: the key, the endpoint, its workers, its image."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from redis import Redis

from diarization.turns import Provenance
from tasks.checks.connection import ask
from tasks.checks.finding import Check, Fault, Finding, Subject, counted, fine, risk, skipped
from tasks.checks.overflow import NOT_CONFIGURED, is_wanted, where_wanted
from tasks.record import State
from tasks.registry import Registry
from tasks.runpod.api import Answer, Kind, RunPodApi
from tasks.runpod.api import max_workers as most_workers
from tasks.settings import Settings
from tasks.version import code_version

API = "https://api.runpod.ai/v2"
JOBS_LOOKED_AT = 200

HALF_SET = Fault(
    "runpod_half_set", "overflow is half set up", "set both RUNPOD_API_KEY and RUNPOD_ENDPOINT_ID, or neither"
)
WRONG_API = Fault(
    "runpod_wrong_api",
    "RUNPOD_ENDPOINT_BASE_URL is not the API that takes jobs",
    f"set RUNPOD_ENDPOINT_BASE_URL={API}, or unset it (api.runpod.io and rest.runpod.io manage endpoints)",
)
IN_THE_CLEAR = Fault(
    "runpod_clear", "the key would cross the network unencrypted", "begin RUNPOD_ENDPOINT_BASE_URL with https://"
)
BAD_KEY = Fault(
    "runpod_key",
    "RunPod refuses the key (401)",
    "make a new key at runpod.io, Settings, API keys, and set RUNPOD_API_KEY on every bridge",
)
NO_RIGHT = Fault(
    "runpod_forbidden",
    "the key may not use this endpoint (403)",
    "give the key read and write access to this endpoint at runpod.io, Settings, API keys",
)
NO_ENDPOINT = Fault(
    "runpod_endpoint",
    "RunPod knows no such endpoint (404)",
    "copy RUNPOD_ENDPOINT_ID from the endpoint's page; a deleted endpoint has to be made anew",
)
UNREACHABLE = Fault(
    "runpod_unreachable", "RunPod cannot be reached", "check this host's way out (DNS, firewall) and status.runpod.io"
)
TROUBLE = risk(
    "runpod_trouble", "RunPod answers with an error", "try again in a minute; status.runpod.io may know more"
)
UNHEALTHY = risk(
    "runpod_unhealthy",
    "workers there do not start or crash",
    "read a worker's log on the endpoint's page: its last line says why the handler ended",
)
THROTTLED = risk(
    "runpod_throttled",
    "RunPod has no GPU for the endpoint",
    "add further GPU types and data centres to the endpoint",
)
NO_WORKERS = Fault(
    "runpod_max_workers",
    "max workers is 0, so no job there ever starts (RunPod lowers it on endpoints that nobody uses)",
    "raise max workers on the endpoint's page",
)
FEW_WORKERS = risk(
    "runpod_few_workers",
    "fewer workers there than jobs that may be sent",
    "raise max workers on the endpoint's page, or lower OVERFLOW_MAX_IN_FLIGHT",
)
UNKNOWN_WORKERS = risk(
    "runpod_unknown_workers",
    "max workers cannot be learned",
    "allow the key to read endpoints, or look at max workers on the endpoint's page yourself",
)
OTHER_IMAGE = risk(
    "runpod_image",
    "the endpoint's image has another version, model or precision: the answer depends on where a job runs",
    "rebuild the endpoint's image from this version, with the fleet's DIARIZATION_MODEL and DIARIZATION_PRECISION",
)

_STATUSES = {401: BAD_KEY, 403: NO_RIGHT, 404: NO_ENDPOINT}


def endpoint(subject: Subject) -> Finding:
    """Key, base URL and endpoint: one look at the endpoint's health."""
    settings = subject.settings
    if not is_wanted(subject):
        return skipped(NOT_CONFIGURED)
    unset = [name for name in ("runpod_api_key", "runpod_endpoint_id") if getattr(settings, name) is None]
    if unset:
        return HALF_SET.found(f"not set: {', '.join(name.upper() for name in unset)}")
    base = urlsplit(settings.runpod_endpoint_base_url)
    if base.hostname and base.hostname.endswith("runpod.io"):
        return WRONG_API.found(f"{base.hostname} manages endpoints and takes no jobs")
    if base.scheme == "http" and base.hostname not in ("localhost", "127.0.0.1", "::1"):
        return IN_THE_CLEAR.found(f"{settings.runpod_endpoint_base_url} is not encrypted")
    answer = _health(settings)
    if answer.kind is Kind.OK:
        jobs = _counts(answer, "jobs")
        queued = counted(jobs.get("inQueue", 0), "job")
        return fine(f"{settings.runpod_endpoint_id}: {queued} in its queue, {jobs.get('inProgress', 0)} in progress")
    return _refused(answer, settings)


def _refused(answer: Answer, settings: Settings) -> Finding:
    where = settings.runpod_endpoint_base_url
    if answer.status is None:
        return UNREACHABLE.found(f"{where}: {answer.says}")
    if answer.body is None:
        return WRONG_API.found(f"{where}: {answer.says}")
    return _STATUSES.get(answer.status, TROUBLE).found(f"{where}: {answer.says}")


def workers(subject: Subject) -> Finding:
    """How the endpoint's workers are."""
    counts = _counts(_health(subject.settings), "workers")
    says = ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "none runs, as between bursts"
    if counts.get("unhealthy"):
        return UNHEALTHY.found(says)
    return THROTTLED.found(says) if counts.get("throttled") else fine(says)


def max_workers(subject: Subject) -> Finding:
    """How many workers RunPod may start, by its management API."""
    most, jobs = most_workers(subject.settings), subject.settings.overflow_max_in_flight
    if most is None:
        return UNKNOWN_WORKERS.found("RunPod's management API does not say; a key may be allowed to send jobs alone")
    if most == 0:
        return NO_WORKERS.found("0")
    return FEW_WORKERS.found(f"{most}, and OVERFLOW_MAX_IN_FLIGHT is {jobs}") if most < jobs else fine(f"{most}")


def image(subject: Subject) -> Finding:
    """What the last job that RunPod has done says of the image there."""
    with ask(subject) as client:
        last = _last_provenance(client, subject.settings.redis_key_prefix)
        alive = Registry(client, subject.settings).alive()
    if last is None:
        return skipped(f"none of the last {JOBS_LOOKED_AT} jobs was done by RunPod")
    number = last.versions.get("diarize-queue", "of an unknown version")
    says = f"the last job there: diarize-queue {number}, {last.model} {last.precision}"
    here = {(facts.model, facts.precision) for facts in alive.values() if facts.role == "gpu" and facts.model}
    if here and (last.model, last.precision) not in here:
        return OTHER_IMAGE.found(f"{says}; here {', '.join(' '.join(pair) for pair in sorted(here))}")
    if number != code_version().split()[0]:
        return OTHER_IMAGE.found(f"{says}; here {code_version()}")
    return fine(says)


def _last_provenance(client: Redis, prefix: str) -> Provenance | None:
    """Of the newest job that has cost something; results are large, so only that one is read."""
    done: Any = client.zrange(f"{prefix}state:{State.DONE}", 0, JOBS_LOOKED_AT - 1, desc=True)
    with client.pipeline(transaction=False) as pipe:
        for job_id in done:
            pipe.hget(f"{prefix}job:{job_id}", "cost_usd")
        costs = pipe.execute()
    paid = [job_id for job_id, cost in zip(done, costs, strict=True) if float(cost or 0)]
    for job_id in paid:
        result: Any = client.hget(f"{prefix}job:{job_id}", "result")
        provenance = Provenance.model_validate(json.loads(result)["provenance"]) if result else None
        if provenance is not None and provenance.provider == "runpod":  # others were paid for, and done at home
            return provenance
    return None


def _health(settings: Settings) -> Answer:
    key, endpoint_id = settings.runpod_api_key, settings.runpod_endpoint_id
    if key is None or endpoint_id is None:  # `endpoint` has said so, and what needs it is not looked at
        return Answer(Kind.UNREACHABLE)
    return RunPodApi(settings.runpod_endpoint_base_url, endpoint_id, key.get_secret_value()).health()


def _counts(answer: Answer, what: str) -> Mapping[str, int]:
    """Numbers by state; none where the answer has another shape."""
    stored: Any = (answer.body or {}).get(what)
    stored = stored if isinstance(stored, dict) else {}
    return {str(state): count for state, count in stored.items() if isinstance(count, int)}


ANSWER_SECONDS = 25.0
CHECKS = (
    Check(
        "runpod",
        "endpoint",
        "RUNPOD_…, and the endpoint's health",
        endpoint,
        (HALF_SET, WRONG_API, IN_THE_CLEAR, BAD_KEY, NO_RIGHT, NO_ENDPOINT, UNREACHABLE, TROUBLE),
        timeout_seconds=ANSWER_SECONDS,
    ),
    Check(
        "runpod",
        "remote workers",
        "the endpoint's health",
        workers,
        (UNHEALTHY, THROTTLED),
        needs="endpoint",
        timeout_seconds=ANSWER_SECONDS,
    ),
    Check(
        "runpod",
        "max workers",
        "RunPod's management API",
        max_workers,
        (NO_WORKERS, FEW_WORKERS, UNKNOWN_WORKERS),
        needs="endpoint",
        timeout_seconds=ANSWER_SECONDS,
    ),
    Check(
        "runpod",
        "image",
        "the last job that RunPod has done",
        where_wanted(image),
        (OTHER_IMAGE,),
        needs="connection",
    ),
)
