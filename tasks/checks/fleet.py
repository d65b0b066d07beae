"""Whether there is somebody for the jobs that wait, and whether all of them are alike."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from tasks.checks.connection import ask
from tasks.checks.finding import Check, Fault, Finding, Mark, Subject, counted, fine, risk, skipped
from tasks.checks.redis_server import CLOCK_FAULTS, skew
from tasks.job import ANYWHERE, LOCAL, RUNPOD
from tasks.record import State
from tasks.records import Records
from tasks.registry import Registry, WorkerFacts
from tasks.server import server_time
from tasks.snapshot import Snapshot
from tasks.version import code_version

LEADER_WAIT_SECONDS = 7.0
"""A new leader comes forward within one round of the chores, which is five seconds."""
RECENT_SECONDS = 86400.0
DEAD_LOOKED_AT = 200
OLDER = "of a version that does not say which"

NOBODY = risk(
    "no_worker", "no worker is alive", "start one: celery -A tasks worker; where it ends, its last line says why"
)
UNSERVED = Fault(
    "unserved",
    "jobs wait, and no worker that is alive takes them",
    "start a GPU worker (celery -A tasks worker) or, for jobs that only RunPod may do, a bridge (WORKER_ROLE=bridge)",
)
PAUSED = risk("paused", "an operator has paused the queue: what waits stays where it is", "diarize-queue resume")
LATE = risk(
    "late",
    "jobs will be done after their deadlines: callers that wait run into their timeouts",
    "start more GPU workers, or a bridge; or give callers a longer timeout (diarize-queue queue shows the forecast)",
)
MIXED_VERSIONS = risk(
    "mixed_versions", "workers, or this host, run different code", "finish the deploy: the same version on every host"
)
MIXED_MODELS = risk(
    "mixed_models",
    "the answer depends on which worker takes a job",
    "set the same DIARIZATION_MODEL and DIARIZATION_PRECISION on every GPU worker",
)
NO_LEADER = risk(
    "no_leader",
    "no worker does the fleet's chores: lost tickets stay lost, nothing is forgotten",
    "restart a worker; its log says 'does the chores of the fleet from now on'",
)
DEAD_LETTERS = risk(
    "dead_letters", "jobs were given up in the last day", "diarize-queue dead list; mend the cause, then dead replay"
)


def workers(subject: Subject) -> Finding:
    """Who is alive."""
    alive = _alive(subject)
    if not alive:
        return NOBODY.found("no worker has been heard of within QUEUE_LEASE_SECONDS")
    roles = Counter(facts.role for facts in alive.values())
    kinds = {"gpu": "GPU worker", "bridge": "bridge"}
    says = ", ".join(counted(count, kinds.get(role, role)) for role, count in sorted(roles.items(), reverse=True))
    jobs = sum(facts.children for facts in alive.values() if facts.role == "gpu")
    return fine(f"{says} alive" + (f", for {counted(jobs, 'job')} at one time" if jobs else ""))


def line(subject: Subject) -> Finding:
    """Whether what waits is taken by somebody, and in time."""
    from tasks.fleet import Fleet  # noqa: PLC0415 - Celery takes half a second to import

    with ask(subject) as client:
        seen = Fleet(client, subject.settings).snapshot()
    if seen.orders.paused:
        return PAUSED.found(f"paused {seen.orders.paused}; waiting: {counted(seen.waiting_jobs, 'job')}")
    if not seen.waiting_jobs:
        return fine(f"nothing waits, running: {counted(len(seen.running), 'job')}")
    roles = {facts.role for facts in seen.workers.values()}
    unserved = [job for job in seen.waiting if not roles & _takers(job.queue)]
    if unserved:
        queues = ", ".join(sorted({job.queue for job in unserved}))
        return UNSERVED.found(f"{counted(len(unserved), 'job')} in {queues}, and nobody who takes from there is alive")
    return _in_time(seen)


def _takers(queue: str) -> set[str]:
    return {ANYWHERE: {"gpu", "bridge"}, LOCAL: {"gpu"}, RUNPOD: {"bridge"}}[queue]


def _in_time(seen: Snapshot) -> Finding:
    says = f"waiting: {counted(seen.waiting_jobs, 'job')}, {seen.waiting_audio_seconds / 3600:.1f} h of audio"
    late = len(seen.late)
    return LATE.found(f"{says}; {late} of the first {len(seen.waiting)} will be late here") if late else fine(says)


def versions(subject: Subject) -> Finding:
    """Whether all workers, and this host, run the same code."""
    said = Counter(facts.version or OLDER for facts in _alive(subject).values())
    if not said:
        return skipped("no worker is alive")
    if len(said) > 1 or code_version() not in said:
        each = ", ".join(f"{counted(count, 'worker')} {version}" for version, count in said.most_common())
        return MIXED_VERSIONS.found(f"{each}; this host {code_version()}")
    return fine(f"{code_version()} everywhere")


def models(subject: Subject) -> Finding:
    """Whether all GPU workers give the same answer."""
    gpus = [facts for facts in _alive(subject).values() if facts.role == "gpu" and facts.model]
    if not gpus:
        return skipped("no GPU worker has said its model")
    said = Counter(" ".join(filter(None, (facts.model, facts.precision))) for facts in gpus)
    if len(said) > 1:
        return MIXED_MODELS.found(", ".join(f"{count} with {what}" for what, count in said.most_common()))
    return fine(f"{next(iter(said))} everywhere")


def leader(subject: Subject) -> Finding:
    """Whether somebody does the fleet's chores."""
    if not _alive(subject):
        return skipped("no worker is alive")
    with ask(subject) as client:
        name = _wait_for(lambda: client.get(subject.settings.redis_key_prefix + "leader"), LEADER_WAIT_SECONDS)
    return fine(f"{name}") if name else NO_LEADER.found(f"nobody has come forward within {LEADER_WAIT_SECONDS:.0f} s")


def clocks(subject: Subject) -> Finding:
    """How far the workers' clocks are from Redis's."""
    ahead = {n: facts.ahead_seconds for n, facts in _alive(subject).items() if facts.ahead_seconds is not None}
    if not ahead:
        return skipped("no worker has said its time")
    name, most = max(ahead.items(), key=lambda pair: abs(pair[1]))
    found = skew(most, name, subject)
    return fine(f"{counted(len(ahead), 'worker')} and Redis agree") if found.mark is Mark.OK else found


def dead_letters(subject: Subject) -> Finding:
    """What jobs were given up for of late, and what helps against the most frequent of it."""
    with ask(subject) as client:
        since = server_time(client) - RECENT_SECONDS
    newest = Records(subject.settings).newest(State.DEAD, DEAD_LOOKED_AT)
    recent: list[Mapping[str, Any]] = [one.error or {} for one in newest if (one.ended_at or 0) >= since]
    if not recent:
        return fine("none in the last day")
    codes = Counter(error.get("code", "unknown") for error in recent)
    (most, _), *_ = codes.most_common()
    advice = next(error.get("advice", "") for error in recent if error.get("code", "unknown") == most)
    counted = ", ".join(f"{count} {code}" for code, count in codes.most_common(4))
    return DEAD_LETTERS.found(f"in the last day: {counted}. {most}: {advice}")


def _alive(subject: Subject) -> dict[str, WorkerFacts]:
    with ask(subject) as client:
        return Registry(client, subject.settings).alive()


def _wait_for(look: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := look()) and time.monotonic() < deadline:
        time.sleep(0.25)
    return found


CHECKS = tuple(
    Check("fleet", name, looks_at, look, faults, needs="connection", timeout_seconds=15)
    for name, looks_at, look, faults in (
        ("workers", "who has been heard of within a lease", workers, (NOBODY,)),
        ("line", "jobs that wait, and who takes them", line, (PAUSED, UNSERVED, LATE)),
        ("versions", "the code of workers and of this host", versions, (MIXED_VERSIONS,)),
        ("models", "model and precision of GPU workers", models, (MIXED_MODELS,)),
        ("leader", "who does the fleet's chores", leader, (NO_LEADER,)),
        ("clocks", "the workers' clocks beside Redis's", clocks, CLOCK_FAULTS),
        ("dead letters", "what jobs were given up for in the last day", dead_letters, (DEAD_LETTERS,)),
    )
)
