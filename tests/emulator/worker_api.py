"""The API that a worker's SDK speaks; its source (runpod-python 1.12, `serverless/modules`) is all there is to read.

The SDK builds its URLs from the environment that `workers.py` gives it. A poll is held open until there is something to
say or the worker is to stop.
"""

from __future__ import annotations

import json
from typing import NoReturn

from aiohttp import web

from tests.emulator.endpoint import MAX_RESULT_BYTES, Endpoint, Job, Worker
from tests.emulator.waiting import until

POLL_SECONDS = 20.0
"""The SDK gives up after 90."""


def worker_app(endpoint: Endpoint) -> web.Application:
    """GET job-take, job-take-batch, job-stop and ping; POST job-done and job-stream; below /v2/{endpoint}."""
    app = web.Application(middlewares=[endpoint.faults.on_the_wire], client_max_size=2 * MAX_RESULT_BYTES)
    api, routes, root = WorkerApi(endpoint), app.router, f"/v2/{endpoint.settings.endpoint_id}"
    routes.add_get(root + "/job-take/{worker}", api.take, name="job-take")
    routes.add_get(root + "/job-take-batch/{worker}", api.take_batch, name="job-take-batch")
    routes.add_get(root + "/job-stop/{worker}", api.stop, name="job-stop")
    routes.add_get(root + "/ping/{worker}", api.ping, name="ping")
    routes.add_post(root + "/job-done/{worker}/{id}", api.done, name="job-done")
    routes.add_post(root + "/job-stream/{worker}/{id}", api.stream, name="job-stream")
    return app


class WorkerApi:
    """One method an operation."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def take(self, request: web.Request) -> web.Response:
        job = await self._next(request)
        return web.json_response({"id": job.id, "input": job.input}) if job else web.Response(status=204)

    async def take_batch(self, request: web.Request) -> web.Response:
        job = await self._next(request)
        return web.json_response([{"id": job.id, "input": job.input}]) if job else web.Response(status=204)

    async def _next(self, request: web.Request) -> Job | None:
        worker = self._worker(request)
        if request.query.get("job_in_progress") == "0":
            self._endpoint.is_idle(worker)
        await until(lambda: self._has_job() or not worker.takes_jobs, POLL_SECONDS)
        return self._endpoint.take(worker)

    def _has_job(self) -> bool:
        return any(
            (job.status == "IN_QUEUE" and job.fault != "stuck-queued") or (job.copies and job.takers)
            for job in self._endpoint.jobs.values()
        )

    async def stop(self, request: web.Request) -> web.Response:
        worker = self._worker(request)
        await until(lambda: worker.stops or not worker.takes_jobs, POLL_SECONDS)
        stops, worker.stops = worker.stops, []
        return web.json_response({"jobsToStop": stops}) if stops else web.Response(status=204)

    async def ping(self, request: web.Request) -> web.Response:
        self._worker(request).pings += 1
        return web.Response()

    async def done(self, request: web.Request) -> web.Response:
        """JSON, whatever its content type says. What is too large or no JSON is refused, and so lost."""
        raw = await request.read()
        try:
            body = json.loads(raw, parse_constant=_refuse)
        except ValueError:
            raise web.HTTPBadRequest(text="the result is no JSON") from None
        if len(raw) > MAX_RESULT_BYTES:
            raise web.HTTPBadRequest(text="the result is too large")
        self._endpoint.post(request.match_info["id"], body)
        if body.get("stopPod"):  # the handler's `refresh_worker`
            self._endpoint.stopping(self._worker(request))
        return web.Response()

    async def stream(self, request: web.Request) -> web.Response:
        return web.Response()

    def _worker(self, request: web.Request) -> Worker:
        worker = self._endpoint.workers.get(request.match_info["worker"])
        if worker is None:
            raise web.HTTPNotFound(text="no such worker")
        return worker


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
