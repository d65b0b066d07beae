"""docs/limits.md: every limit, as the code has it."""

from __future__ import annotations

from textwrap import fill
from typing import NamedTuple

from diarization import addresses, decode, errors, fetch, memory, recording, timeline, turns
from diarization.ffmpeg import DEMUXERS
from docs.generators.markdown import table
from docs.generators.settings import bounds, default
from runpod_worker import contract
from tasks import fleet, job, webhook_post, webhooks
from tasks.overflow import price
from tasks.settings import MAX_DEADLINE_SECONDS, Settings

GIB, GB, HOUR, DAY = 1024**3, 1e9, 3600.0, 86400.0
FIXED = "fixed"
WIDTH = 120
"""Characters of a line of text."""


class Limit(NamedTuple):
    """A row.

    Attributes:
        what: Is limited.
        value: To what, by default.
        raised_by: How it is raised, or lowered.
        hit: What happens beyond it.
    """

    what: str
    value: str
    raised_by: str
    hit: str


def setting(what: str, name: str, unit: str, hit: str) -> Limit:
    """A limit that a setting says."""
    field = Settings.model_fields[name]
    allowed = bounds(field)
    value = f"{field.default / GIB:g} GiB" if unit == "GiB" else f"{default(field.default)} {unit}"
    return Limit(what, value, f"`{name.upper()}`" + (f", {allowed}" if allowed else ""), hit)


def code(cls: type[errors.DiarizationError]) -> str:
    """The code of an error."""
    return f"`{cls.code}`"


TRIED_AGAIN = f"{code(errors.RecordingFetchFailed)}, tried again"

LIMITS: dict[str, tuple[Limit, ...]] = {
    "Recordings": (
        setting(
            "length",
            "diarization_max_hours",
            "hours",
            f"{code(errors.RecordingTooLong)}, once so much has been decoded, whatever a header promised",
        ),
        setting("size as downloaded", "diarization_max_bytes", "GiB", code(errors.RecordingTooLarge)),
        setting("a whole download", "diarization_download_timeout_seconds", "s", TRIED_AGAIN),
        setting("wait for the next byte", "diarization_stall_timeout_seconds", "s", TRIED_AGAIN),
        Limit("wait for a connection", f"{addresses.CONNECT_TIMEOUT_SECONDS:g} s an address", FIXED, TRIED_AGAIN),
        Limit("redirects", str(fetch.MAX_REDIRECTS), FIXED, code(errors.UrlNotAllowed)),
        Limit(
            "address",
            "public ones",
            "`DIARIZATION_ALLOWED_NETWORKS`",
            f"{code(errors.UrlNotAllowed)}, at each redirect, too",
        ),
        Limit(
            "URL",
            f"{recording.MAX_URL_CHARACTERS:,} characters",
            FIXED,
            f"{code(errors.UrlNotAllowed)} when it is submitted",
        ),
        Limit(
            "decoding without a sample",
            f"{decode.STALL_TIMEOUT_SECONDS:g} s",
            FIXED,
            f"{code(errors.RecordingUndecodable)}",
        ),
        Limit("disk", "the recording's size", "room below `TMPDIR`", f"{code(errors.DiskFull)}, tried again"),
        Limit(
            "memory, beyond the loaded model",
            f"{memory.BASE_BYTES / GB:g} GB and {memory.BYTES_PER_AUDIO_HOUR / GB:g} GB an hour",
            "a worker with more of it",
            f"{code(errors.NoRoom)}: waits for a worker with enough; {code(errors.DoesNotFit)} where none has as much",
        ),
    ),
    "Jobs": (
        Limit("speakers in hints", f"1 to {turns.MAX_SPEAKERS}", FIXED, code(errors.InvalidJob)),
        Limit("`expected_audio_seconds=`", f"{job.MAX_AUDIO_SECONDS / HOUR:g} hours", FIXED, code(errors.InvalidJob)),
        Limit("`deadline_seconds=`", f"{MAX_DEADLINE_SECONDS / DAY:g} days", FIXED, code(errors.InvalidJob)),
        Limit(
            "`idempotency_key=`",
            bounds(job.JobRequest.model_fields["idempotency_key"]),
            FIXED,
            code(errors.InvalidJob),
        ),
        setting(
            "starts",
            "queue_max_attempts",
            "attempts",
            f"a dead letter with the last error, or {code(errors.AttemptsExhausted)}",
        ),
        setting("wait before the second", "queue_retry_base_seconds", "s", "doubles with each one after"),
        setting("wait between any two", "queue_retry_cap_seconds", "s", "waits no longer"),
        setting(
            "time without progress",
            "queue_stall_seconds",
            "s, and a twentieth of the recording's length",
            f"{code(errors.AttemptStalled)}, tried again",
        ),
        Limit(
            "time in all",
            "ten times `DIARIZATION_MAX_HOURS`, and more",
            "`time_limit=` of `apply_async`",
            code(errors.TimeLimitReached),
        ),
        setting(
            "a silent worker",
            "queue_lease_seconds",
            "s",
            "is taken for dead; its job goes to another, first in line",
        ),
        Limit(
            "the line, as far as it is forecast job by job",
            f"{fleet.FIRST_IN_LINE_JOBS} jobs",
            FIXED,
            "those behind are estimated as a whole",
        ),
    ),
    "Results": (
        setting(
            "jobs, results, dead letters after their end",
            "queue_retention_days",
            "days",
            "forgotten: `status` knows no such job, and `get()` waits until its timeout is over",
        ),
        Limit("size", "none here", "Redis' memory", f"{code(errors.QueueUnavailable)} at submit; workers wait"),
        Limit(
            "size at RunPod",
            f"{contract.MAX_RESULT_BYTES / 1e6:g} MB",
            'fixed; `provider="local"` has none',
            "embeddings, then `exclusive_segments` are left out, with a warning; "
            f"{code(errors.ResultTooLarge)} where the turns alone are more",
        ),
        Limit("error text at RunPod", f"{contract.MAX_ERROR_CHARACTERS:,} characters", FIXED, "cut off"),
        Limit(
            "width of a picture",
            f"{timeline.MIN_WIDTH_PX:,} to {timeline.MAX_WIDTH_PX:,} pixels",
            FIXED,
            code(errors.InvalidJob),
        ),
    ),
    "Webhooks": (
        Limit("a receiver's answer", f"{webhook_post.WHOLE_SECONDS:g} s", FIXED, "not taken; comes again"),
        setting("tries", "webhook_give_up_hours", "hours", "given up; `diarize-queue webhooks replay`"),
        Limit(
            "wait between tries",
            f"{webhooks.FIRST_WAIT_SECONDS:g} s, twice as long each time, up to {webhooks.LONGEST_WAIT_SECONDS:g} s",
            FIXED,
            "",
        ),
        Limit(
            "deliveries of a worker at one time",
            f"{webhooks.AT_ONCE}, {webhooks.AT_ONCE // 2} of them to one receiver",
            FIXED,
            "the others wait",
        ),
        Limit("address", "public ones", "`WEBHOOK_ALLOWED_NETWORKS`", "given up"),
    ),
    "RunPod": (
        setting(
            "money a day (UTC)",
            "overflow_budget_usd_per_day",
            "USD",
            f"jobs stay here; {code(errors.OverflowClosed)} for those that only RunPod may do, until their deadline",
        ),
        setting("jobs there at one time", "overflow_max_in_flight", "jobs", "the others wait here"),
        setting(
            "a run, for an hour of audio",
            "overflow_seconds_per_audio_hour",
            "s",
            f"RunPod ends it: {code(errors.OverflowLost)}, tried again at home",
        ),
        Limit(
            "a run, whatever its length",
            f"{price.SHORTEST_TIMEOUT_SECONDS:g} s to {price.LONGEST_TIMEOUT_SECONDS / DAY:g} days",
            FIXED,
            "",
        ),
        setting("start of a worker there", "overflow_cold_start_seconds", "s", "may cost more than was reserved"),
    ),
    "Workers": (
        setting("loading the model", "queue_start_timeout_seconds", "s", "the worker ends with exit code 78"),
        setting("going on after SIGTERM", "queue_grace_seconds", "s", "hands its job back, first in line"),
    ),
}


def limits_tables() -> str:
    """A table for each group."""
    parts: list[str] = []
    for heading, limits in LIMITS.items():
        parts += [f"### {heading}", table(("what", "by default", "raised by", "beyond it"), limits)]
    return "\n\n".join(parts)


def containers() -> str:
    """Those that are read, by ffmpeg's names."""
    names = ", ".join(f"`{name}`" for name in DEMUXERS.split(","))
    return fill(names, WIDTH, break_on_hyphens=False)
