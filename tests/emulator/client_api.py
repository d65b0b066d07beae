"""The endpoint's API, as clients see it: https://docs.runpod.io/serverless/endpoints/operation-reference.

Beside it, though RunPod has it at another host, the management API's page of the endpoint:
https://docs.runpod.io/api-reference-v2/serverless/get-a-serverless-endpoint.
"""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from tests.emulator.endpoint import Endpoint, Job
from tests.emulator.faults import Handler
from tests.emulator.waiting import until

MAX_RUN_BYTES, MAX_RUNSYNC_BYTES = 10_000_000, 20_000_000
POLICY_BOUNDS_MS = {"ttl": (10_000, 7 * 86_400_000), "executionTimeout": (5_000, 7 * 86_400_000)}
SYNC_WAIT_MS = (1_000, 90_000, 300_000)
"""Shortest, default, longest."""


def client_app(endpoint: Endpoint) -> web.Application:
    """POST /run and /runsync, GET /status/{id}, POST /cancel/{id}, GET /health, below /v2/{endpoint}.

    And GET /v2/serverless/{endpoint}, which is the management API's, of another host in reality.
    """
    app = web.Application(
        middlewares=[endpoint.faults.on_the_wire, _gatekeeper(endpoint)], client_max_size=MAX_RUNSYNC_BYTES
    )
    api = ClientApi(endpoint)
    routes = app.router
    routes.add_post("/v2/{endpoint}/run", api.run, name="run")
    routes.add_post("/v2/{endpoint}/runsync", api.runsync, name="runsync")
    routes.add_get("/v2/{endpoint}/status/{id}", api.status, name="status", allow_head=False)
    routes.add_post("/v2/{endpoint}/cancel/{id}", api.cancel, name="cancel")
    routes.add_get("/v2/{endpoint}/health", api.health, name="health", allow_head=False)
    routes.add_get("/v2/serverless/{endpoint}", api.settings, name="settings", allow_head=False)
    return app


def _gatekeeper(endpoint: Endpoint) -> Any:
    """401 without the key, 404 for another endpoint. RunPod's documentation writes the key with and without Bearer."""

    @web.middleware
    async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
        key = endpoint.settings.api_key
        if request.headers.get("Authorization", "") not in (f"Bearer {key}", key):
            return _error(401, "unauthorized")
        if request.match_info.get("endpoint", endpoint.settings.endpoint_id) != endpoint.settings.endpoint_id:
            return _error(404, "endpoint not found")
        try:
            return await handler(request)
        except Refused as refusal:
            return _error(refusal.status, str(refusal))

    return admit


class Refused(Exception):
    """A request that makes no sense, and the HTTP status that says so."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def _error(status: int, text: str) -> web.Response:
    return web.json_response({"error": text}, status=status)


class ClientApi:
    """One method an operation."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def run(self, request: web.Request) -> web.Response:
        body = await self._submitted(request, MAX_RUN_BYTES)
        job = self._endpoint.submit(body)
        return web.json_response({"id": job.id, "status": "IN_QUEUE"})

    async def runsync(self, request: web.Request) -> web.Response:
        body = await self._submitted(request, MAX_RUNSYNC_BYTES)
        shortest, default, longest = SYNC_WAIT_MS
        wait_ms = min(longest, max(shortest, int(request.query.get("wait", default))))
        job = self._endpoint.submit(body, sync=True)
        await until(lambda: job.is_final, wait_ms / 1000)
        return web.json_response(describe(job))

    async def status(self, request: web.Request) -> web.Response:
        return web.json_response(describe(self._job(request)))

    async def cancel(self, request: web.Request) -> web.Response:
        job = self._job(request)
        self._endpoint.cancel(job)
        return web.json_response({"id": job.id, "status": job.status})

    async def health(self, request: web.Request) -> web.Response:
        return web.json_response(health(self._endpoint))

    async def settings(self, request: web.Request) -> web.Response:
        return web.json_response(managed(self._endpoint))

    def _job(self, request: web.Request) -> Job:
        self._endpoint.tick()
        job = self._endpoint.jobs.get(request.match_info["id"])
        if job is None:
            raise Refused(404, "job not found")
        return job

    async def _submitted(self, request: web.Request, max_bytes: int) -> dict[str, Any]:
        raw = await request.read()
        if len(raw) > max_bytes:
            raise Refused(413, f"the body is larger than {max_bytes} bytes")
        try:
            body = json.loads(raw)
        except ValueError:
            raise Refused(400, "the body is no JSON") from None
        if not isinstance(body, dict) or "input" not in body:
            raise Refused(400, "input is required")
        policy = body.get("policy") or {}
        if not isinstance(policy, dict):
            raise Refused(400, "policy must be an object")
        for name, (least, most) in POLICY_BOUNDS_MS.items():
            value = policy.get(name, least)
            if not isinstance(value, int) or not least <= value <= most:
                raise Refused(400, f"policy.{name} must be from {least} to {most} ms")
        return body


def describe(job: Job) -> dict[str, Any]:
    """A job as /status tells it; times in milliseconds. While it runs, `output` is its last progress post."""
    told: dict[str, Any] = {"id": job.id, "status": job.status, **job.answer}
    if job.started_at is not None:
        told["delayTime"] = round((job.started_at - job.submitted_at) * 1000)
        told["workerId"] = job.takers[-1]
        if job.ended_at is not None:
            told["executionTime"] = round((job.ended_at - job.started_at) * 1000)
    return told


def managed(endpoint: Endpoint) -> dict[str, Any]:
    """The endpoint as its owner sees it (docs.runpod.io/api-reference-v2, `Endpoint`): what is read of it."""
    settings = endpoint.settings
    return {
        "id": settings.endpoint_id,
        "type": "QUEUE_BASED",
        "workers": {"min": settings.active_workers, "max": settings.max_workers},
        "scaling": {"type": "QUEUE_DELAY", "value": settings.scale_after_seconds, "idleTimeout": settings.idle_seconds},
        "timeout": int(settings.execution_timeout_seconds * 1000),
    }


def health(endpoint: Endpoint) -> dict[str, Any]:
    """Jobs and workers by state. `ready` overlaps `idle`, as in public captures."""
    states = [worker.state for worker in endpoint.workers.values()]
    wanted = bool(endpoint.waiting) and not endpoint.live_workers
    return {
        "jobs": {
            "completed": endpoint.ended["COMPLETED"],
            "failed": endpoint.ended["FAILED"] + endpoint.ended["TIMED_OUT"],
            "inProgress": sum(job.status == "IN_PROGRESS" for job in endpoint.jobs.values()),
            "inQueue": len(endpoint.waiting),
            "retried": endpoint.retried,
        },
        "workers": {
            "idle": states.count("idle"),
            "initializing": states.count("initializing"),
            "ready": states.count("idle"),
            "running": states.count("running"),
            "throttled": int(endpoint.settings.throttled and wanted and endpoint.settings.max_workers > 0),
            "unhealthy": states.count("unhealthy"),
        },
    }
