"""JobRequest: what a caller asks for, checked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from diarization.addresses import canonical_host, is_global
from diarization.errors import InvalidJob, UrlNotAllowed, WorkerTooOld
from diarization.recording import Recording, parse_url, redact_url
from diarization.signed_url import unsigned_url
from diarization.turns import SpeakerHints, first_complaint
from tasks.settings import MAX_DEADLINE_SECONDS

ANYWHERE, LOCAL, RUNPOD = "diarize", "diarize.local", "diarize.runpod"
"""The queues: jobs that may run anywhere; that must stay in the house; that must go to RunPod."""

BATCH_PRIORITY = 9
"""Of what is submitted in bulk: behind everything else. (kombu's Redis transport has four steps: 0, 3, 6 and 9.)"""

MAX_AUDIO_SECONDS = 240 * 3600.0
"""DIARIZATION_MAX_HOURS can be no larger."""

_ASIDE = frozenset(("expected_audio_seconds", "deadline_seconds", "webhook", "webhook_result"))
"""What changes nothing of a job's answer: it stands in fields of the record of its own."""


class JobRequest(BaseModel):
    """One request to diarize one recording: the arguments of `diarize.delay`.

    Attributes:
        url: The recording's; http, https, or file below the workers' DIARIZATION_RECORDINGS_DIR.
        num_speakers: How many people speak, where that is known.
        min_speakers: At least so many.
        max_speakers: At most so many.
        provider: `local` keeps the job on the own GPUs, `runpod` has it done there; None lets it run anywhere.
        expected_audio_seconds: How long the recording is, as far as the caller knows.
        deadline_seconds: The job should be done so long after it may start; None stands for OVERFLOW_DEADLINE_SECONDS.
        headers: Sent along when the recording is fetched, such as `{"Authorization": "Bearer …"}`. Kept as secrets.
        idempotency_key: Names what is asked for: all jobs of one key have one answer, which is worked out once.
        webhook: Told of the job's end by a POST; http or https. A secret.
        webhook_result: Whether that brings the result along.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    url: str = Field(repr=False)
    num_speakers: int | None = None
    min_speakers: int | None = None
    max_speakers: int | None = None
    provider: Literal["local", "runpod"] | None = None
    expected_audio_seconds: float | None = Field(default=None, gt=0, le=MAX_AUDIO_SECONDS, allow_inf_nan=False)
    deadline_seconds: float | None = Field(default=None, gt=0, le=MAX_DEADLINE_SECONDS, allow_inf_nan=False)
    headers: dict[str, str] = Field(default_factory=dict, repr=False)
    idempotency_key: str | None = Field(default=None, min_length=1, max_length=200)
    webhook: str | None = Field(default=None, repr=False)
    webhook_result: bool = False

    @field_validator("headers", mode="before")
    @classmethod
    def _none_is_empty(cls, value: Any) -> Any:
        return {} if value is None else value

    @classmethod
    def check(cls, arguments: dict[str, Any]) -> Self:
        """A request from a caller's arguments.

        Raises:
            UrlNotAllowed: No recording can have this URL.
            InvalidJob: An option makes no sense.
        """
        parts = parse_url(arguments.get("url", ""))
        if parts.hostname and parts.scheme != "file":
            canonical_host(parts.hostname)
        try:
            request = cls.model_validate(arguments)
        except ValidationError as error:
            raise InvalidJob(first_complaint(error)) from None
        # Each is valid, or raises.
        _ = request.recording, request.hints
        request._check_webhook()
        return request

    @classmethod
    def of_record(cls, arguments: Mapping[str, Any]) -> Self:
        """The request that a record holds, which has been checked.

        Raises:
            WorkerTooOld: A newer version has written it, and it asks for more than this one knows.
        """
        if unknown := arguments.keys() - cls.model_fields.keys():
            raise WorkerTooOld(f"the job asks for {', '.join(sorted(unknown))}, which this version does not know")
        return cls.model_validate(dict(arguments))

    @property
    def recording(self) -> Recording:
        """What is to be fetched."""
        return Recording(self.url, self.headers)

    @property
    def hints(self) -> SpeakerHints:
        """What the caller knows about the number of speakers."""
        return SpeakerHints.check(
            num_speakers=self.num_speakers, min_speakers=self.min_speakers, max_speakers=self.max_speakers
        )

    def _check_webhook(self) -> None:
        if self.webhook is None:
            if self.webhook_result:
                raise InvalidJob("webhook_result: there is no webhook= to bring it to")
            return
        try:
            parts = parse_url(self.webhook)
            if parts.scheme not in ("http", "https") or parts.username is not None:
                raise UrlNotAllowed("must be an http or https URL without a user")
            canonical_host(parts.hostname or "")
        except UrlNotAllowed as error:
            raise InvalidJob(f"webhook: {error.message}") from None

    def queue(self, reachable: Sequence[IPv4Network | IPv6Network] = ()) -> str:
        """The queue for it: where it may run is known from what it asks for.

        Args:
            reachable: Networks that a provider can reach though they are not public.

        Raises:
            UrlNotAllowed: It is to be done at a provider, who cannot fetch the recording.
        """
        inside = _stays_in_the_house(self.url, reachable)
        if self.provider == "runpod":
            if inside:
                raise UrlNotAllowed("RunPod cannot fetch this recording: its address is not public")
            return RUNPOD
        return LOCAL if self.provider == "local" or inside else ANYWHERE

    @property
    def shown(self) -> str:
        """The URL as logs, events and Flower may show it."""
        return redact_url(self.url)

    @property
    def fingerprint(self) -> str:
        """The same for requests that ask for the same: signatures of the URL and headers may differ."""
        answer = self.model_dump(mode="json", exclude={"headers", "idempotency_key", *_ASIDE})
        asked = {**answer, "url": unsigned_url(self.url)}
        return sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    def arguments(self) -> dict[str, Any]:
        """The arguments that were given and decide the answer, as JSON types. They hold secrets."""
        return self.model_dump(mode="json", exclude_defaults=True, exclude=set(_ASIDE))

    def shown_options(self) -> dict[str, Any]:
        """The options that were given, decide the answer and may be shown."""
        hidden = {"url", "headers", "idempotency_key", *_ASIDE}
        return self.model_dump(mode="json", exclude_defaults=True, exclude=hidden)


def _stays_in_the_house(url: str, reachable: Sequence[IPv4Network | IPv6Network]) -> bool:
    """Whether the URL alone says that nothing outside could fetch it (host names are not resolved here)."""
    parts = parse_url(url)
    host = parts.hostname or ""
    if parts.scheme == "file" or host == "localhost" or host.endswith((".localhost", ".local", ".internal")):
        return True
    try:
        address = ip_address(host)
        return not is_global(address) and not any(address in network for network in reachable)
    except ValueError:
        return False
