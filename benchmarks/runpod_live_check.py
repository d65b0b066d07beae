"""Ten minutes with a real endpoint: does what was written from RunPod's documentation hold there?

    RUNPOD_API_KEY=… RUNPOD_ENDPOINT_ID=… make runpod-live-check

It submits eight jobs of ten seconds and asks before the first, because they cost money. Each step prints what it saw;
all that RunPod answered, without the key, goes to a JSON file, for those who maintain this. It exits with 1 where a
step did not go as docs/runpod.md says.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from diarization import __version__, canary
from diarization.turns import Diarization
from tasks.overflow.price import Price
from tasks.runpod.api import Answer, RunPodApi, max_workers
from tasks.settings import Settings, SettingsError, read_settings
from tasks.valkey import EmbeddedValkey
from tests.processes import Worker

FINAL = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"})
JOBS = 8
LOOK_SECONDS = 1.0


class Wrong(Exception):
    """Something is not as docs/runpod.md says."""


class LiveCheck:
    """The steps, in order; each says what it saw, or raises `Wrong`.

    Attributes:
        seen: Every answer of RunPod, in order.
    """

    def __init__(self, settings: Settings, patience_seconds: float) -> None:
        assert settings.runpod_api_key is not None
        assert settings.runpod_endpoint_id is not None
        self._settings = settings
        self._key = settings.runpod_api_key.get_secret_value()
        self._endpoint_id = settings.runpod_endpoint_id
        self._api = self._with(self._key)
        self._patience_seconds = patience_seconds
        self.seen: list[dict[str, Any]] = []

    @property
    def steps(self) -> Mapping[str, Callable[[], str]]:
        """By name."""
        return {
            "the endpoint answers": self.health,
            "its max workers": self.max_workers,
            "a wrong key": self.wrong_key,
            "an unknown run": self.unknown_run,
            "the canary, cold": self.diarizes,
            "the canary, warm": self.diarizes,
            "an address that is not public": self.refuses,
            "a run that is cancelled while it waits": self.cancels,
            "a run that nobody takes in its ttl": self.expires,
            "through the queue, and a bridge that is killed": self.through_the_queue,
        }

    def health(self) -> str:
        """Key, base URL and endpoint fit together."""
        answer = self._expect("health", self._api.health(), 200)
        workers = answer.get("workers")
        if not isinstance(workers, dict):
            raise Wrong("no workers are named")
        return ", ".join(f"{count} {state}" for state, count in workers.items())

    def max_workers(self) -> str:
        """RunPod lowers them in quiet weeks, down to 0."""
        most = max_workers(self._settings)
        if most == 0:
            raise Wrong("they are 0: raise them in RunPod's console")
        return "not told to this key, so that only the canary finds out" if most is None else str(most)

    def wrong_key(self) -> str:
        """It opens the breaker, and must not look like anything else."""
        self._expect("wrong key", self._with("rpa_wrong").health(), 401)
        return "HTTP 401"

    def unknown_run(self) -> str:
        """How a run that RunPod has lost looks."""
        self._expect("unknown run", self._api.status("00000000-0000-0000-0000-000000000000-u1"), 404)
        return "HTTP 404"

    def diarizes(self) -> str:
        """The known answer, from an image of this version."""
        told = self._run(canary.URL)
        if told["status"] != "COMPLETED":
            raise Wrong(f"{told['status']}: {told.get('error')}")
        answer = Diarization.from_json(told.get("output"))
        if wrong := canary.complaint(answer):
            raise Wrong(wrong)
        theirs = answer.provenance.versions.get("diarize-queue")
        if theirs != __version__:
            raise Wrong(f"its image is of version {theirs}, this is {__version__}")
        waited, ran = (told.get(name, 0) / 1000 for name in ("delayTime", "executionTime"))
        return f"right; waited {waited:.1f} s, ran {ran:.1f} s on {answer.provenance.gpu or answer.provenance.device}"

    def refuses(self) -> str:
        """An error of ours reaches the client as one line."""
        told = self._run("http://169.254.169.254/latest/meta-data")
        if told["status"] != "FAILED" or not str(told.get("error")).startswith("url_not_allowed: "):
            raise Wrong(f"{told['status']}: {told.get('error')}")
        return "FAILED, url_not_allowed"

    def cancels(self) -> str:
        """Of three at once, the last waits."""
        *others, last = [self._submit(canary.URL) for _ in range(3)]
        self._expect("cancel", self._api.cancel(last), 200)
        status = self._wait(last)["status"]
        for run_id in others:
            self._wait(run_id)
        if status != "CANCELLED":
            raise Wrong(f"it is {status}; with idle workers it may have begun: try again")
        return "CANCELLED"

    def expires(self) -> str:
        """What becomes of it is documented in two ways: TIMED_OUT, and 404."""
        run_id = self._submit(canary.URL, policy={"ttl": 10_000, "executionTimeout": 5_000})
        deadline = time.monotonic() + 60
        status = ""
        while time.monotonic() < deadline:
            answer = self._api.status(run_id)
            status = "404" if answer.status == 404 else str((answer.body or {}).get("status"))
            if status in FINAL or status == "404":
                break
            time.sleep(LOOK_SECONDS)
        self._note("expired", self._api.status(run_id))
        if status not in FINAL | {"404"}:
            raise Wrong(f"{status} after a minute")
        return f"{status} (a warm worker completes it)"

    def through_the_queue(self) -> str:
        """One submission, though the bridge dies when RunPod has the job."""
        with tempfile.TemporaryDirectory(prefix="live-check-") as folder, EmbeddedValkey(persistent=True) as server:
            os.environ |= {"REDIS_URL": server.url, "WORKER_ROLE": "bridge", "OVERFLOW_CANARY_HOURS": "0"}
            # Read from here on, when the settings are those of this step.
            from tasks.runpod_bridge import diarize_on_runpod  # noqa: PLC0415

            first = self._bridge(Path(folder), "first")
            try:
                job = diarize_on_runpod.delay(canary.URL, expected_audio_seconds=canary.AUDIO_SECONDS)
                run_id = self._stored_run(diarize_on_runpod, job.id)
                first.process.send_signal(signal.SIGKILL)
                first.process.wait()
                second = self._bridge(Path(folder), "second")
                try:
                    result = job.get(timeout=self._patience_seconds)
                finally:
                    second.stop()
            finally:
                first.kill()
            log = second.log
        if f"is found again as run {run_id}" not in log or "went to RunPod" in log:
            raise Wrong("the second bridge did not find the run of the first")
        return f"found again, done by {result['provenance']['provider']} for {result['provenance']['cost_usd']:.4f} USD"

    def _stored_run(self, task: Any, job_id: str) -> str:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            record = task.records.get(job_id)
            if record is not None and record.remote is not None and record.remote.run_id:
                return str(record.remote.run_id)
            time.sleep(0.05)
        raise Wrong("the bridge has not submitted the job within a minute")

    def _bridge(self, folder: Path, name: str) -> Worker:
        worker = Worker(folder / f"{name}.log", name, {"QUEUE_LEASE_SECONDS": "5"}, ("-A", "tasks"), ())
        worker.wait_until_ready()
        return worker

    def _with(self, key: str) -> RunPodApi:
        return RunPodApi(self._settings.runpod_endpoint_base_url, self._endpoint_id, key)

    def _run(self, url: str) -> dict[str, Any]:
        return self._wait(self._submit(url))

    def _submit(self, url: str, policy: Mapping[str, int] | None = None) -> str:
        body: dict[str, Any] = {"input": {"task": "diarization", "audio_url": url}}
        told = self._expect("run", self._api.run(body | ({"policy": dict(policy)} if policy else {})), 200)
        return str(told["id"])

    def _wait(self, run_id: str) -> dict[str, Any]:
        deadline = time.monotonic() + self._patience_seconds
        while True:
            answer = self._api.status(run_id)
            told = dict(answer.body or {})
            if told.get("status") in FINAL:
                self._note("status", answer)
                return told
            if time.monotonic() > deadline:
                raise Wrong(f"run {run_id} is {told.get('status') or answer.says} after {self._patience_seconds:.0f} s")
            time.sleep(LOOK_SECONDS)

    def _expect(self, what: str, answer: Answer, status: int) -> dict[str, Any]:
        self._note(what, answer)
        if answer.status != status:
            raise Wrong(f"{answer.says or answer.kind.value} instead of HTTP {status}")
        return dict(answer.body or {})

    def _note(self, what: str, answer: Answer) -> None:
        self.seen.append({"what": what, **asdict(answer), "kind": answer.kind.value})


def main() -> int:
    """Run the steps; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.runpod_live_check", description=__doc__)
    parser.add_argument("--yes", action="store_true", help="do not ask before the first paid job")
    parser.add_argument(
        "--patience", type=float, default=900, metavar="SECONDS", help="for one job, with its cold start"
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("runpod-live-check.json"), help="RunPod's answers")
    given = parser.parse_args()
    try:
        settings = read_settings()
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if settings.runpod_api_key is None or settings.runpod_endpoint_id is None:
        print("error: set RUNPOD_API_KEY and RUNPOD_ENDPOINT_ID", file=sys.stderr)
        return 2
    price = Price.of(settings)
    most_usd = JOBS * price.bound_usd(price.execution_timeout_seconds(canary.AUDIO_SECONDS))
    print(f"endpoint {settings.runpod_endpoint_id} at {settings.runpod_endpoint_base_url}")
    print(f"{JOBS} jobs of 10 s; by the bounds of the settings they cost {most_usd:.2f} USD at most")
    if not given.yes and input("go on? [y/N] ").strip().lower() not in ("y", "yes"):
        return 1
    check = LiveCheck(settings, given.patience)
    failed = 0
    for name, step in check.steps.items():
        began = time.monotonic()
        try:
            how, says = "ok  ", step()
        except Wrong as wrong:
            how, says = "FAIL", str(wrong)
        except Exception as error:  # noqa: BLE001 - the other steps still say something
            how, says = "FAIL", f"{type(error).__name__}: {error}"
        failed += how == "FAIL"
        print(f"{how} {name}: {says} ({time.monotonic() - began:.0f} s)", flush=True)
        if failed and step == check.health:
            break  # then every other step would say the same
    given.output.write_text(json.dumps(check.seen, indent=1, default=str) + "\n")
    print(f"what RunPod answered: {given.output}")
    print(f"runpod-live-check: {f'{failed} steps failed' if failed else 'ok'}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
