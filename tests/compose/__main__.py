"""From a clean checkout to an answer, and no job lost while workers are scaled, stopped and killed. Says ok last.

    python -m tests.compose

It needs Docker with Compose 2.24 or newer, and takes some minutes: the images are really built (unless they are in the
build cache), and each job is the real model on the sample recording. Everything it makes has a name of its own and is
taken away at the end.
"""

from __future__ import annotations

import json
import re
import sys
import time
from typing import Any

from tests.compose.stack import ROOT, ComposeError, Stack, run, stack
from tests.processes import forget_settings

URL = "http://demo:8000/sample.wav"
SAMPLE = ROOT / "recordings" / "sample" / "sample.wav"
# Docker's own ranges for networks that nobody has given one: there the demo's file server is.
DOCKER_NETWORKS = "172.16.0.0/12,192.168.0.0/16"
JOBS_UNDER_SCALING = 12
LEASE_SECONDS = 10
PATIENCE_SECONDS = 900.0
# The same turns as the 32 and 32 of the model's config, and on a CPU twice as fast.
STOCK_BATCHES = ("--segmentation-batch", "8", "--embedding-batch", "1")


def check_answer(it: Stack) -> str:
    """One job by the command of the docs; its turns are stock pyannote's, as the demo shows it on the host."""
    answer = json.loads(it.tasks("submit", "--wait", "--format", "json", URL))
    stock = json.loads(run([sys.executable, "-m", "diarization.stock", str(SAMPLE), *STOCK_BATCHES]))["diarization"]
    for track in ("segments", "exclusive_segments"):
        if answer[track] != stock[track]:
            raise ComposeError(f"{track} differ from stock's: {answer[track]} and {stock[track]}")
    return f"{len(answer['segments'])} turns, equal to stock's"


def check_scaling(it: Stack) -> str:
    """From one worker to three and back while jobs wait and run."""
    ids = it.submit(URL, JOBS_UNDER_SCALING)
    it.scale(3)
    it.wait_until("three workers at work", lambda: len(running(it)) == 3, PATIENCE_SECONDS)
    it.scale(1)
    left = sum(job["ended_at"] is None for job in it.jobs().values())
    ended = wait_for_end(it, ids)
    states = {job["state"] for job in ended}
    if states != {"done"}:
        raise ComposeError(f"jobs ended as {states}")
    by = len({job["worker"] for job in ended})
    return f"{len(ids)} jobs, all done, by {by} workers; {left} still to do when two of the three went"


def check_kill(it: Stack) -> str:
    """A worker killed in the middle of its job: another does it."""
    it.scale(2)
    (job_id,) = it.submit(URL, 1)
    worker = it.wait_until("the job runs", lambda: running(it).get(job_id), 60)
    killed = worker.partition("@")[2].partition(" ")[0]
    run(["docker", "kill", killed])
    (job,) = wait_for_end(it, [job_id])
    if job["state"] != "done" or job["attempts"] != 2 or killed in job["worker"]:
        raise ComposeError(f"the job of the worker that was killed: {job}")
    seconds = job["ended_at"] - job["submitted_at"]
    return f"done by the other worker at the second attempt, {seconds:.0f} s after it was submitted"


def check_restart(it: Stack) -> str:
    """All containers killed and made anew: the job list is as it was."""
    before = it.jobs()
    it.compose("kill")
    it.compose("rm", "--force")
    it.up()
    after = it.jobs()
    if after != before:
        raise ComposeError(f"the job list changed: {before} became {after}")
    return f"{len(after)} jobs are known as before"


def check_tls(it: Stack) -> str:
    """Redis by TLS, with a certificate made as docs/deploy.md says: only a producer that knows its CA is served."""
    run(["bash", "-ec", certificate_commands("DNS:localhost")], folder=it.folder)
    (it.folder / "tls" / "redis.key").chmod(0o644)  # its owner is the container's user, where whoever runs this is root
    files = ("--file", "docker-compose.yml", "--file", "docker-compose.tls.yml")
    it.compose(*files, "up", "--detach", "--wait", "redis")
    port = it.compose(*files, "port", "redis", "6380").strip().rpartition(":")[2]
    url = f"rediss://:{it.password}@localhost:{port}/0"
    producer = (sys.executable, "-m", "tasks", "submit", URL)
    job_id = run(producer, REDIS_URL=f"{url}?ssl_ca_certs={it.folder}/tls/ca.crt").strip()
    try:
        run(producer, REDIS_URL=url)
    except ComposeError as error:
        if "certificate verify failed" not in str(error):
            raise
    else:
        raise ComposeError("a producer trusts a certificate that nobody whom it knows has signed")
    (job,) = wait_for_end(it, [job_id])
    return f"the job of a producer by rediss:// is {job['state']}; without the CA it is refused"


def certificate_commands(names: str) -> str:
    """Those of docs/deploy.md, for a server of these names."""
    found = re.search(r"```\n(mkdir -p tls\n.*?)```", (ROOT / "docs" / "deploy.md").read_text(), re.DOTALL)
    if not found:
        raise ComposeError("docs/deploy.md does not say how to make a certificate")
    return re.sub(r"subjectAltName=[^\"]*", f"subjectAltName={names}", found[1])


def check_secrets(it: Stack) -> str:
    """The password is in no log and in no list of processes."""
    lines = it.compose("logs", "--no-color")
    processes = it.compose("top")
    if it.password in lines or it.password in processes:
        raise ComposeError("the password of Redis shows in a log or in a list of processes")
    return f"no password in {len(lines.splitlines())} log lines"


def check_confinement(it: Stack) -> str:
    """No container runs as root, can write its root or has a capability."""
    for container in it.compose("ps", "--quiet").split():
        (facts,) = json.loads(run(["docker", "inspect", container]))
        host, user = facts["HostConfig"], facts["Config"]["User"]
        if user in ("", "0", "root") or not host["ReadonlyRootfs"] or host["CapDrop"] != ["ALL"]:
            raise ComposeError(f"{facts['Name']} runs as {user or 'root'}, CapDrop {host['CapDrop']}")
        for bindings in facts["NetworkSettings"]["Ports"].values():
            if any(binding["HostIp"] != "127.0.0.1" for binding in bindings or ()):
                raise ComposeError(f"{facts['Name']} is offered to other hosts: {bindings}")
    return "no root, nothing writable, no capability, no port but on loopback"


def running(it: Stack) -> dict[str, str]:
    """The jobs that run, each with its worker."""
    return {job["id"]: job["worker"] for job in it.jobs().values() if job["state"] == "running"}


def wait_for_end(it: Stack, ids: list[str]) -> list[dict[str, Any]]:
    """The entries of these jobs in the list, once they have all ended."""

    def ended() -> list[dict[str, Any]]:
        jobs = it.jobs()
        return [jobs[one] for one in ids] if all(jobs[one]["ended_at"] for one in ids) else []

    return list(it.wait_until("all jobs have ended", ended, PATIENCE_SECONDS))


CHECKS = (check_answer, check_confinement, check_scaling, check_kill, check_restart, check_tls, check_secrets)


def main() -> int:
    """Run all checks; the exit code."""
    try:
        run(["docker", "version"])
        run(["docker", "compose", "version"])
    except ComposeError as error:
        print(f"compose-test: needs a Docker engine with Compose, and there is none: {error}")
        return 1
    forget_settings()  # for compose, what the shell has goes before what .env has
    began = time.monotonic()
    try:
        settings = {"DIARIZATION_ALLOWED_NETWORKS": DOCKER_NETWORKS, "QUEUE_LEASE_SECONDS": str(LEASE_SECONDS)}
        with stack(**settings) as it:
            print(f"{'up':<14}{time.monotonic() - began:6.0f} s  built, started, healthy", flush=True)
            for check in CHECKS:
                began = time.monotonic()
                said = check(it)
                name = check.__name__.removeprefix("check_")
                print(f"{name:<14}{time.monotonic() - began:6.0f} s  {said}", flush=True)
    except ComposeError as error:
        first = (
            f"{error.__context__}\n" if isinstance(error.__context__, ComposeError) else ""
        )  # then cleaning up failed
        print(f"compose-test: failed: {first}{error}")
        return 1
    print("compose-test: ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
