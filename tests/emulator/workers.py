"""The endpoint's workers: when one starts and stops, and the process it is.

RunPod's scaler by queue delay: one more worker when a job has waited for too long, up to the maximum; the first at
once. A worker is paid for from here on, whatever it does.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tasks.tether import spawn_tethered
from tests.emulator.endpoint import Endpoint, Worker
from tests.processes import ROOT

HANDLER = (sys.executable, "-u", "-m", "runpod_worker.handler")
LOOK_SECONDS = 0.05
STOP_SECONDS = 30.0
"""What a worker has to end its job when it is stopped; RunPod does not say how long."""


class Workers:
    """Starts and stops the processes of an endpoint's workers; each one's output goes to a file of its own."""

    def __init__(
        self, endpoint: Endpoint, folder: Path, environment: Mapping[str, str], command: Sequence[str] = HANDLER
    ) -> None:
        self._endpoint = endpoint
        self._folder = folder
        self._environment = dict(environment)
        self._command = command
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._last_start = 0.0

    async def run(self, port: int) -> None:
        """Until it is cancelled."""
        while True:
            self._endpoint.tick()
            self._look()
            self._scale()
            self._spawn(port)
            await asyncio.sleep(LOOK_SECONDS)

    def log(self, worker_id: str) -> str:
        """What a worker has written."""
        path = self._folder / f"{worker_id}.log"
        return path.read_text() if path.exists() else ""

    def signal(self, worker_id: str, number: signal.Signals) -> None:
        """Send a signal to a worker's process, behind the endpoint's back."""
        self._processes[worker_id].send_signal(number)

    def stop(self, worker: Worker) -> None:
        """Ask a worker to end, as RunPod does with one that it no longer needs."""
        self._endpoint.stopping(worker)
        process = self._processes.get(worker.id)
        if process is None:
            self._endpoint.gone(worker)
        else:
            process.terminate()

    def end(self) -> None:
        """All processes are gone after this, whatever they were at."""
        for worker in self._endpoint.live_workers:
            self._endpoint.stopping(worker)
        for process in self._processes.values():
            process.kill()
            process.wait()
        self._look()

    def _look(self) -> None:
        """See which processes have ended, and kill those that do not though they were asked."""
        endpoint = self._endpoint
        for worker in endpoint.live_workers:
            process = self._processes.get(worker.id)
            if process is None:
                continue
            if process.poll() is not None:
                worker.exit_code = process.returncode
                endpoint.gone(worker)
            elif worker.state == "stopping" and endpoint.now() - worker.stopping_since > STOP_SECONDS:
                process.kill()
        for worker in endpoint.workers.values():
            since = endpoint.now() - (worker.stopped_at or endpoint.now())
            if worker.state == "unhealthy" and since > endpoint.settings.restart_seconds:
                worker.state = "stopped"

    def _scale(self) -> None:
        endpoint, settings, now = self._endpoint, self._endpoint.settings, self._endpoint.now()
        live = [worker for worker in endpoint.live_workers if worker.state != "stopping"]
        for worker in live:
            spare = len(live) > settings.active_workers
            if spare and worker.state == "idle" and now - worker.idle_since > settings.idle_seconds:
                live.remove(worker)
                self.stop(worker)
        unhealthy = sum(worker.state == "unhealthy" for worker in endpoint.workers.values())
        if settings.throttled or len(live) + unhealthy >= max(settings.max_workers, settings.active_workers):
            return
        oldest = min((job.submitted_at for job in endpoint.waiting), default=None)
        is_late = oldest is not None and now - max(oldest, self._last_start) > settings.scale_after_seconds
        if len(live) < settings.active_workers or (oldest is not None and not live) or is_late:
            self._last_start = now
            worker = Worker(f"worker{len(endpoint.workers)}", started_at=now)
            endpoint.workers[worker.id] = worker

    def _spawn(self, port: int) -> None:
        """Start the processes of workers whose cold start is over."""
        endpoint = self._endpoint
        for worker in endpoint.live_workers:
            cold = endpoint.now() - worker.started_at < endpoint.settings.cold_start_seconds
            if worker.id in self._processes or worker.state != "initializing" or cold:
                continue
            environment = {**os.environ, **self._runpod(worker, port), **self._environment}
            with (self._folder / f"{worker.id}.log").open("wb") as sink:
                self._processes[worker.id] = spawn_tethered(
                    self._command, stdout=sink, environment=environment, folder=ROOT
                )

    def _runpod(self, worker: Worker, port: int) -> dict[str, str]:
        """What RunPod puts into a worker's environment, as the SDK reads it; `$…` is filled in by the SDK."""
        api = f"http://127.0.0.1:{port}/v2/{self._endpoint.settings.endpoint_id}"
        return {
            "RUNPOD_ENDPOINT_ID": self._endpoint.settings.endpoint_id,
            "RUNPOD_POD_ID": worker.id,
            "RUNPOD_AI_API_KEY": "emulated-worker-key",
            "RUNPOD_WEBHOOK_GET_JOB": f"{api}/job-take/$ID?gpu=emulated",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{api}/job-done/$RUNPOD_POD_ID/$ID?gpu=emulated",
            "RUNPOD_WEBHOOK_POST_STREAM": f"{api}/job-stream/$RUNPOD_POD_ID/$ID?gpu=emulated",
            "RUNPOD_WEBHOOK_PING": f"{api}/ping/$RUNPOD_POD_ID",
            "RUNPOD_PING_INTERVAL": "1000",
            # The SDK's own checks of a worker look for a GPU, and for a server outside.
            "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
            "RUNPOD_SKIP_GPU_CHECK": "true",
        }
