"""A busy fleet in Redis, as workers and producers write it: for tests of what people see, and for pictures of it."""

from __future__ import annotations

import math
import time
from itertools import cycle, islice

from redis import Redis

from diarization.diarizer import STAGES
from tasks.diarize import diarize
from tasks.overflow.budget import Ledger
from tasks.overflow.decision import Decision
from tasks.overflow.valve import Valve
from tasks.records import worker_name
from tasks.registry import WorkerFacts
from tasks.settings import current_settings
from tasks.speed import Speed

HOUR = 3600.0
SHARES = dict(zip(STAGES, (0.03, 0.05, 0.3, 0.55, 0.07), strict=True))
"""Of a job's time, by stage."""
SECONDS = 60.0
"""That it takes in all."""
L4 = WorkerFacts("gpu", children=2, device="cuda:0", gpu="NVIDIA L4", model="community-1", precision="exact")
PLACES = ("council", "planning-committee", "school-board", "budget-hearing", "annual-assembly", "youth-parliament")
PROGRESS = (("embedding", 62.0), ("segmentation", 38.0), ("embedding", 11.0), ("clustering", 90.0), ("decode", 45.0))


def announce(redis: Redis, node: str, facts: WorkerFacts, seconds_per_audio_hour: float | None = None) -> str:
    """A worker that lives from now on, for as long as a lease; its name in records."""
    worker = worker_name(node, 4711)
    diarize.records.renew(worker, facts.to_json(), [], idle=False)
    if seconds_per_audio_hour:
        # Side by side, as its children have worked: the rest of the time each has waited for the others' networks.
        work = {stage: share * 2 * seconds_per_audio_hour / facts.children for stage, share in SHARES.items()}
        speed = Speed(2 * HOUR, 2 * seconds_per_audio_hour, work)
        redis.hset(current_settings().redis_key_prefix + "fleet:speeds", worker, speed.to_json())
    return worker


def recordings(count: int) -> list[str]:
    """So many URLs of meetings."""
    names = islice(cycle(PLACES), count)
    return [f"https://media.example.org/2026/{number:02}-{name}.mp3" for number, name in enumerate(names, 1)]


def start(redis: Redis, url: str, worker: str, stage: str, percent: float, audio_seconds: float = HOUR) -> str:
    """A job that this worker runs, and has got so far with; its id."""
    job_id = diarize.apply_async((url,), priority=0).id
    record = diarize.records.get(job_id)
    assert record is not None
    assert diarize.records.take(job_id, record.ticket_number, worker) == "taken"
    record = diarize.records.get(job_id)
    assert record is not None
    before = STAGES[: STAGES.index(stage)]
    over = {one: round(SHARES[one] * SECONDS, 2) for one in before}
    assert diarize.records.progress(job_id, record.token, stage, percent, audio_seconds, over) == "go on"
    so_far = math.fsum([*over.values(), SHARES[stage] * SECONDS * percent / 100])
    started_at = time.time() - so_far
    times = {"submitted_at": started_at - 40, "started_at": started_at}
    redis.hset(f"{current_settings().redis_key_prefix}job:{job_id}", mapping=times)
    return job_id


def busy_fleet(redis: Redis, workers: int = 3, waiting: int = 40) -> list[str]:
    """GPU workers of two children each, a bridge, jobs at all of them, and a line; the ids of those that run."""
    names = [announce(redis, f"celery@gpu{number}", L4, 62.0 + 3 * number) for number in range(workers)]
    announce(redis, "celery@bridge", WorkerFacts("bridge", children=3))
    urls = recordings(2 * workers + waiting)
    steps = cycle(PROGRESS)
    running = [start(redis, url, names[number // 2], *next(steps)) for number, url in enumerate(urls[: 2 * workers])]
    lengths = cycle((0.5, 1.0, 1.5, 2.0))
    jobs = [{"url": url, "expected_audio_seconds": HOUR * next(lengths)} for url in urls[2 * workers :]]
    diarize.submit_many(jobs[: waiting // 2], priority=6)
    diarize.submit_many(jobs[waiting // 2 :])
    settings = current_settings()
    ledger = Ledger(redis, settings)
    ledger.reserve("yesterday", 3.1, 3)
    ledger.settle("yesterday", 3.1)
    ledger.reserve("now", 0.93, 3)
    Valve(redis, settings).set(Decision(3, "open: 11 jobs would be late here, 2 with 3 jobs at RunPod"))
    return running
