"""Whether jobs may go to RunPod: who carries them, the money, the breaker, and what the last runs have shown."""

from __future__ import annotations

from collections.abc import Callable

from tasks.checks.connection import ask
from tasks.checks.finding import Check, Fault, Finding, Role, Subject, fine, risk, skipped
from tasks.overflow.breaker import Breaker
from tasks.overflow.budget import Ledger
from tasks.overflow.outcomes import Measured, Outcomes, measure
from tasks.overflow.price import Price
from tasks.registry import Registry
from tasks.server import server_time
from tasks.settings import Settings

NEAR_THE_BOUND = 0.8
MANY_FAILURES = 0.25

NO_BRIDGE = risk(
    "no_bridge",
    "overflow is configured, and no bridge is alive",
    "start one: WORKER_ROLE=bridge celery -A tasks worker",
)
NO_BUDGET = risk("no_budget", "OVERFLOW_BUDGET_USD_PER_DAY is 0: nothing is sent", "set a budget, or start no bridge")
SMALL_BUDGET = Fault(
    "small_budget",
    "the day's budget is less than one job may cost: nothing is ever sent",
    "raise OVERFLOW_BUDGET_USD_PER_DAY, or lower OVERFLOW_SECONDS_PER_AUDIO_HOUR or DIARIZATION_MAX_HOURS",
)
SPENT = risk(
    "budget_spent", "today's budget has no room for one more job", "wait for tomorrow (UTC), or raise the budget"
)
DEFAULT_PRICE = risk(
    "default_price",
    "the price of a second is a guess, and with it the budget",
    "set OVERFLOW_USD_PER_SECOND to what your endpoint's GPU costs (runpod.io/pricing)",
)
SHUT = Fault(
    "ledger_shut",
    "nothing is sent today: what was spent is not known",
    "see what RunPod has billed; then diarize-queue budget reopen",
)
BREAKER_OPEN = Fault(
    "breaker_open", "RunPod is offered no jobs for now", "mend what the line names; it is tried again by itself"
)
DRY_RUN = risk("dry_run", "OVERFLOW_DRY_RUN is on: nothing is sent", "unset OVERFLOW_DRY_RUN once the log looks right")
FAILING = risk(
    "runpod_failing",
    "many of the last runs there failed",
    "read a worker's log there; rebuild its image from this version where that is older (worker_too_old)",
)
TIGHT_BOUNDS = risk(
    "tight_bounds",
    "runs there come near the bounds: RunPod ends what takes longer (TIMED_OUT), and the ledger underestimates",
    "raise OVERFLOW_SECONDS_PER_AUDIO_HOUR and OVERFLOW_COLD_START_SECONDS, or choose a faster GPU there",
)
NOT_CONFIGURED = "overflow is not configured (RUNPOD_API_KEY, RUNPOD_ENDPOINT_ID)"


def is_wanted(subject: Subject) -> bool:
    """Whether this host has to do with overflow."""
    settings = subject.settings
    return subject.role is Role.BRIDGE or settings.runpod_api_key is not None or settings.runpod_endpoint_id is not None


def where_wanted(look: Callable[[Subject], Finding]) -> Callable[[Subject], Finding]:
    """`look`, on hosts that have to do with overflow."""
    return lambda subject: look(subject) if is_wanted(subject) else skipped(NOT_CONFIGURED)


def bridge(subject: Subject) -> Finding:
    """Who carries jobs there."""
    with ask(subject) as client:
        alive = Registry(client, subject.settings).alive()
    count = sum(facts.role == "bridge" for facts in alive.values())
    return fine(f"{count} alive") if count else NO_BRIDGE.found("none is alive")


def budget(subject: Subject) -> Finding:
    """Prices, the day's budget and what is left of it."""
    settings, price = subject.settings, Price.of(subject.settings)
    bound = price.bound_usd(price.execution_timeout_seconds(settings.diarization_max_hours * 3600))
    with ask(subject) as client:
        today = Ledger(client, settings).today()
    says = f"{today.spent_usd + today.reserved_usd:.2f} of {today.limit_usd:g} USD today; a job costs up to {bound:.2f}"
    if today.shut:
        return SHUT.found(f"{today.shut}; {says}")
    if today.limit_usd == 0:
        return NO_BUDGET.found("the budget is 0")
    if today.limit_usd < bound:
        return SMALL_BUDGET.found(says)
    if today.left_usd < bound:
        return SPENT.found(says)
    if "overflow_usd_per_second" not in settings.model_fields_set:
        return DEFAULT_PRICE.found(f"{says}, by the default of {settings.overflow_usd_per_second:g} USD a second")
    return fine(says)


def runs(subject: Subject) -> Finding:
    """What the breaker and the last runs say."""
    with ask(subject) as client:
        broken = Breaker(client, subject.settings).state()
        last, now = Outcomes(client, subject.settings).last(), server_time(client)
    if broken is not None:
        return BREAKER_OPEN.found(
            f"for {broken.until - now:.0f} s more, after {broken.failures} failures: {broken.why}"
        )
    if subject.settings.overflow_dry_run:
        return DRY_RUN.found("OVERFLOW_DRY_RUN is set")
    return _measured(measure(last, now), len(last), subject.settings) if last else fine("no run yet")


def _measured(seen: Measured, count: int, settings: Settings) -> Finding:
    says = f"the last {count}: {seen.failure_share:.0%} failures expected"
    if seen.failure_share > MANY_FAILURES:
        return FAILING.found(says)
    bounds = {
        "s for an hour of audio": (seen.seconds_per_audio_hour, settings.overflow_seconds_per_audio_hour),
        "s for a cold start": (seen.cold_seconds, settings.overflow_cold_start_seconds),
    }
    tight = [
        f"{took:.0f} of {bound:g} {what}"
        for what, (took, bound) in bounds.items()
        if took is not None and took > NEAR_THE_BOUND * bound
    ]
    return TIGHT_BOUNDS.found(f"{says}; {', '.join(tight)}") if tight else fine(says)


CHECKS = tuple(
    Check("runpod", name, looks_at, where_wanted(look), faults, needs="connection")
    for name, looks_at, look, faults in (
        ("bridge", "bridges that are alive", bridge, (NO_BRIDGE,)),
        ("budget", "prices, the ledger, today's budget", budget, (SHUT, NO_BUDGET, SMALL_BUDGET, SPENT, DEFAULT_PRICE)),
        ("runs", "the breaker, and the last runs", runs, (BREAKER_OPEN, DRY_RUN, FAILING, TIGHT_BOUNDS)),
    )
)
