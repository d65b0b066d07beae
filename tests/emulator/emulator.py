"""The emulator as a whole: both APIs and the workers on an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from aiohttp import ClientError, ClientSession, ClientTimeout, web

from tests.emulator.client_api import client_app, describe, health
from tests.emulator.endpoint import Endpoint, Job, Settings, Submission, Worker
from tests.emulator.faults import Fault, Faults
from tests.emulator.worker_api import worker_app
from tests.emulator.workers import HANDLER, Workers

T = TypeVar("T")

LOOPBACK = "127.0.0.1"
WEBHOOK_TRIES, WEBHOOK_PAUSE_SECONDS = 3, 10.0  # docs.runpod.io, "Send requests": two more tries, 10 s apart


class Emulator:
    """A RunPod of one endpoint; lives as long as its `with` block, and its workers with it.

    Every method may be called from any thread; what is given back is a copy.

    Attributes:
        url: What RUNPOD_ENDPOINT_BASE_URL is to be set to.
        settings: The endpoint's; changed by `change`.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] = HANDLER,
        port: int = 0,
    ) -> None:
        """Nothing runs yet.

        Args:
            folder: For the workers' logs.
            settings: The endpoint's.
            environment: Of the workers, beside this process's and what RunPod sets.
            command: What a worker is.
            port: Of the client API; 0 takes a free one.
        """
        self.settings = settings or Settings()
        self._folder, self._environment, self._command, self._port = folder, environment or {}, command, port
        self._loop = asyncio.new_event_loop()
        self._ready, self._stop = threading.Event(), asyncio.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._main, name="emulator")
        self._webhooks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(RuntimeError):  # it has failed, and its loop is closed
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self._port}/v2"

    @property
    def endpoint_url(self) -> str:
        return f"{self.url}/{self.settings.endpoint_id}"

    @property
    def headers(self) -> dict[str, str]:
        """What a client authorizes itself with."""
        return {"Authorization": f"Bearer {self.settings.api_key}"}

    def script(self, *faults: Fault) -> None:
        """Faults, to strike after those scripted before."""
        self._call(lambda: self._faults.script(*faults))

    def release(self) -> None:
        """Let go on what a `hold-…` fault holds back."""
        self._call(lambda: self._faults.release())

    def clear_faults(self) -> None:
        """Nothing more goes wrong."""
        self._call(lambda: self._faults.clear())

    def advance(self, seconds: float) -> None:
        """Let the endpoint's clock jump."""
        self._call(lambda: self._endpoint.advance(seconds))

    def change(self, **settings: Any) -> None:
        """Change the endpoint's settings, as its owner or RunPod does (`max_workers=0`, `throttled=True`)."""
        self._call(lambda: self._endpoint.change(**settings))

    def forget(self) -> None:
        """Lose every job, as after a failure of RunPod's own store."""
        self._call(lambda: self._endpoint.jobs.clear())

    @contextlib.contextmanager
    def outage(self) -> Iterator[None]:
        """In this block nobody listens at the client API's port; workers and jobs go on."""
        asyncio.run_coroutine_threadsafe(self._fall_silent(), self._loop).result()
        try:
            yield
        finally:
            asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()

    @property
    def jobs(self) -> dict[str, Job]:
        """Jobs by id, as far as the endpoint still knows them."""
        return self._call(lambda: copy.deepcopy(self._endpoint.jobs))

    def job(self, job_id: str) -> Job:
        return self.jobs[job_id]

    @property
    def submissions(self) -> list[Submission]:
        """Every job ever accepted."""
        return self._call(lambda: list(self._endpoint.submissions))

    def submissions_by(self, field: str) -> Counter[str]:
        """How many jobs were accepted for each value of a field of their input, such as `audio_url`."""
        return Counter(str(submission.input.get(field)) for submission in self.submissions)

    @property
    def requests(self) -> Counter[str]:
        """How often each operation was asked for, faults included."""
        return self._call(lambda: self._faults.requests.copy())

    @property
    def struck(self) -> list[Fault]:
        """The faults that have struck."""
        return self._call(lambda: list(self._faults.struck))

    @property
    def health(self) -> dict[str, Any]:
        """What GET /health says."""
        return self._call(lambda: health(self._endpoint))

    @property
    def workers(self) -> dict[str, Worker]:
        """Every worker ever started."""
        return self._call(lambda: copy.deepcopy(self._endpoint.workers))

    @property
    def bill_usd(self) -> float:
        """What it has cost so far."""
        return self._call(lambda: self._endpoint.bill_usd)

    def log(self, worker_id: str = "worker0") -> str:
        """What a worker has written."""
        return self._workers.log(worker_id)

    def signal(self, worker_id: str, number: signal.Signals) -> None:
        """Send a worker's process a signal of which the endpoint knows nothing."""
        self._call(lambda: self._workers.signal(worker_id, number))

    def stop_worker(self, worker_id: str = "worker0") -> None:
        """Stop a worker, as scaling down does."""
        self._call(lambda: self._workers.stop(self._endpoint.workers[worker_id]))

    def _call(self, function: Callable[[], T]) -> T:
        async def on_the_loop() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(on_the_loop(), self._loop).result()

    def _main(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:  # noqa: BLE001 - raised again where the block begins
            self._failure = error
        finally:
            self._loop.close()
            self._ready.set()

    async def _serve(self) -> None:
        self._faults = Faults()
        self._endpoint = Endpoint(self.settings, self._faults)
        self._endpoint.on_end = self._call_webhook
        self._workers = Workers(self._endpoint, self._folder, self._environment, self._command)
        self._clients = web.AppRunner(client_app(self._endpoint), access_log=None, shutdown_timeout=0.1)
        # A poll of a worker that is gone must not take a job.
        inside = web.AppRunner(
            worker_app(self._endpoint), access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )
        for runner in (self._clients, inside):
            await runner.setup()
        await self._listen()
        site = web.TCPSite(inside, LOOPBACK, 0)
        await site.start()
        scaling = asyncio.create_task(self._workers.run(inside.addresses[0][1]))
        stopping = asyncio.create_task(self._stop.wait())
        self._ready.set()
        try:
            await asyncio.wait([scaling, stopping], return_when=asyncio.FIRST_COMPLETED)
            if scaling.done():
                scaling.result()  # it only ends by an error
        finally:
            for task in (scaling, stopping, *self._webhooks):
                task.cancel()
            self._faults.clear()
            self._workers.end()
            await inside.cleanup()
            await self._clients.cleanup()

    async def _listen(self) -> None:
        self._site = web.TCPSite(self._clients, LOOPBACK, self._port, reuse_address=True)
        await self._site.start()
        self._port = self._clients.addresses[0][1]

    async def _fall_silent(self) -> None:
        await self._site.stop()
        if self._clients.server is not None:
            await self._clients.server.shutdown(0.1)

    def _call_webhook(self, job: Job) -> None:
        if job.webhook:
            task = self._loop.create_task(_tell(job.webhook, {**describe(job), "input": job.input}))
            self._webhooks.add(task)
            task.add_done_callback(self._webhooks.discard)


async def _tell(url: str, told: dict[str, Any]) -> None:
    async with ClientSession(timeout=ClientTimeout(total=10)) as session:
        for attempt in range(WEBHOOK_TRIES):
            if attempt:
                await asyncio.sleep(WEBHOOK_PAUSE_SECONDS)
            with contextlib.suppress(ClientError, TimeoutError):
                async with session.post(url, json=told) as response:
                    if response.status == 200:
                        return
