"""RemoteRun: what a job's record says of a try that was, or may have been, submitted to a provider.

It is written before anything is reserved for it, again just before the submission, and with the provider's id before
the first look at its status. So whoever takes the job after a crash finds the try again, or knows that there is none,
or knows that nobody can know.
"""

from __future__ import annotations

from dataclasses import dataclass

from tasks.stored import Stored

QUEUED, UNDER_WAY = "queued at runpod", "at runpod"
"""Stages of a job that is there."""


SUBMISSION_SECONDS = 20.0
"""What its submission may have taken; `take.lua` knows it, too."""


@dataclass(frozen=True)
class RemoteRun(Stored):
    """One try. Times are seconds since 1970.

    Attributes:
        attempt_id: Ours; names its reservation in the ledger.
        base_url: Of the API that it was submitted to; settings may have changed since.
        endpoint_id: Likewise.
        intended_at: When it was thought of, and then just before its submission.
        ttl_seconds: The provider has forgotten it for certain when so much time has passed.
        execution_timeout_seconds: The provider ends it when it has run for so long.
        reserved_usd: Its upper bound.
        is_sent: Whether its submission has begun: before that the provider has no such job.
        run_id: The provider's; None while the submission has not been answered.
    """

    attempt_id: str
    base_url: str
    endpoint_id: str
    intended_at: float
    ttl_seconds: float
    execution_timeout_seconds: float
    reserved_usd: float
    is_sent: bool = False
    run_id: str | None = None

    @property
    def gone_at(self) -> float:
        """From then on the provider knows it no more, and runs it no more."""
        return self.intended_at + SUBMISSION_SECONDS + self.ttl_seconds
