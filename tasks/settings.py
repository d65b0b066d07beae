"""Every setting of the project: one frozen object, read from the environment here and nowhere else."""

from __future__ import annotations

import os
import re
from difflib import get_close_matches
from functools import cache
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from diarization.diarizer import BUNDLED_MODEL, DiarizerOptions
from tasks.signature import secret_bytes

# A name that begins like this and is no setting is a typing error; it must not pass in silence.
PREFIXES = ("DIARIZATION_", "QUEUE_", "OVERFLOW_", "WEBHOOK_")

ALIKE = 0.85
"""By difflib's ratio: RUNPOD_API_KEYS is like RUNPOD_API_KEY, RUNPOD_POD_ID is like nothing of ours."""

# Where Docker and Compose put secrets. A file there that is named like a setting holds its value, where the environment
# has none.
SECRETS = Path("/run/secrets")

MAX_DEADLINE_SECONDS = 30 * 86400.0

Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode]


class SettingsError(Exception):
    """The environment holds a setting that cannot be used. The message names it and says what is allowed."""


class Settings(BaseSettings):
    """What the environment says. Units stand in the names; a field's description is its line in docs/configure.md."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", case_sensitive=False, env_ignore_empty=True)

    redis_url: SecretStr = Field(
        default=SecretStr("redis://localhost:6379/0"),
        description="Broker, records and results. `rediss://` and a password work.",
    )
    redis_key_prefix: str = Field(
        default="diarize:", max_length=64, description="Begins every key, so that several users can share one Redis."
    )
    hf_token: SecretStr | None = Field(
        default=None, description="Token for the model hub, needed for gated models alone."
    )
    worker_role: Literal["gpu", "bridge"] = Field(
        default="gpu",
        description="What a worker started here does: `gpu` runs the model, `bridge` hands jobs to RunPod.",
    )

    diarization_model: str = Field(
        default=str(BUNDLED_MODEL),
        min_length=1,
        description="Folder of a pyannote pipeline, or a hub name such as `pyannote/speaker-diarization-3.1`.",
    )
    diarization_diarizer: str = Field(
        default="diarization.pipeline:load",
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
        description="`module:function` that returns a Diarizer: where a model of your own plugs in.",
    )
    diarization_device: str = Field(
        default="auto", pattern=r"^(auto|cpu|cuda|cuda:\d+)$", description="`auto`, `cpu`, `cuda` or `cuda:N`."
    )
    diarization_jobs_per_gpu: int | None = Field(
        default=None,
        ge=1,
        le=16,
        description="Jobs that a worker runs side by side: one computes while the others are fetched, decoded and "
        "clustered. Each has a process with a model of its own. 2 on a GPU, 1 on a CPU.",
    )
    diarization_gpu_seats_dir: Path | None = Field(
        default=None,
        description="Where the workers of one host note which GPU each has taken, so that each has its own; containers "
        "share it.",
    )
    cuda_visible_devices: str | None = Field(
        default=None, description="CUDA's own. Where it is set, a worker takes that GPU and looks for no free one."
    )
    diarization_precision: Literal["exact", "fast"] = Field(
        default="exact", description="`exact` is stock pyannote's answer; `fast` trades some of it, and results say so."
    )
    diarization_embeddings: bool = Field(
        default=False, description="Whether results carry each speaker's voice embedding (biometric data)."
    )
    diarization_allowed_networks: Networks = Field(
        default=(),
        description="CIDRs, comma-separated, that recordings may be fetched from though they are not public.",
    )
    diarization_recordings_dir: Path | None = Field(
        default=None, description="Where set, `file://` URLs below it are read (a volume shared with the producer)."
    )
    diarization_max_hours: float = Field(default=12, gt=0, le=240, description="Longest recording, in hours.")
    diarization_max_bytes: int = Field(
        default=4 * 1024**3, ge=1, description="Largest recording as downloaded, in bytes."
    )
    diarization_download_timeout_seconds: float = Field(
        default=3600, gt=0, le=86400, description="Longest time for one whole download."
    )
    diarization_stall_timeout_seconds: float = Field(
        default=30, gt=0, le=3600, description="Longest wait for the next byte of a download."
    )

    queue_lease_seconds: int = Field(
        default=45,
        ge=2,
        le=3600,
        description="A worker silent for this long is taken for dead. The same for every process of one Redis.",
    )
    queue_max_attempts: int = Field(default=4, ge=1, le=100, description="Starts of a job before it is given up.")
    queue_retry_base_seconds: float = Field(
        default=5, ge=0, le=3600, description="Wait before the second attempt; doubles with each one after."
    )
    queue_retry_cap_seconds: float = Field(default=600, ge=0, le=86400, description="Longest wait between attempts.")
    queue_stall_seconds: float = Field(
        default=300,
        ge=1,
        le=86400,
        description="A job without progress for so long, plus a twentieth of its length, hangs and is ended.",
    )
    queue_grace_seconds: float = Field(
        default=25,
        ge=0,
        le=86400,
        description="How long a worker that is told to stop (SIGTERM) goes on with its job before it hands it back.",
    )
    queue_retention_days: float = Field(
        default=7, gt=0, le=3650, description="How long records and results of ended jobs stay."
    )
    queue_start_timeout_seconds: float = Field(
        default=300, ge=1, le=3600, description="How long a worker may take to load its model."
    )

    queue_runtime_dir: Path | None = Field(
        default=None,
        description="Folder for a worker's small files, which its health check reads; else TMPDIR, else `/tmp`.",
    )

    runpod_api_key: SecretStr | None = Field(
        default=None, description="RunPod's key; with RUNPOD_ENDPOINT_ID it lets a bridge send jobs there."
    )
    runpod_endpoint_id: str | None = Field(
        default=None, pattern=r"^[\w-]{1,64}$", description="The RunPod serverless endpoint that does the overflow."
    )
    runpod_endpoint_base_url: str = Field(
        default="https://api.runpod.ai/v2", description="Of RunPod's endpoint API; RunPod's SDK reads the same name."
    )

    runpod_management_base_url: str = Field(
        default="https://api.runpod.io/v2",
        description="Of RunPod's management API, which is asked for the endpoint's max workers.",
    )

    overflow_deadline_seconds: float = Field(
        default=900,
        gt=0,
        le=MAX_DEADLINE_SECONDS,
        description="A job without a `deadline_seconds` of its own should be done so long after it may start.",
    )
    overflow_budget_usd_per_day: float = Field(
        default=10,
        ge=0,
        le=100_000,
        description="USD that RunPod may bill per UTC day, by upper bounds; 0 sends nothing.",
    )
    overflow_usd_per_second: float = Field(
        default=0.00031, gt=0, le=1, description="What a second of the endpoint's GPU costs, in USD."
    )
    overflow_max_in_flight: int = Field(
        default=3, ge=1, le=1000, description="Jobs at RunPod at one time, and the threads of a bridge."
    )
    overflow_cold_start_seconds: float = Field(
        default=120, ge=0, le=3600, description="Upper bound on the start of a RunPod worker; reserved with each job."
    )
    overflow_idle_seconds: float = Field(
        default=5, ge=0, le=3600, description="The endpoint's idle timeout, which is billed after a job."
    )
    overflow_seconds_per_audio_hour: float = Field(
        default=200,
        ge=1,
        le=36_000,
        description="Upper bound on what a RunPod worker takes for an hour of audio; longer runs are ended.",
    )
    overflow_canary_hours: float = Field(
        default=24,
        ge=0,
        le=72,
        description="An endpoint without a job for so long gets one of 10 s, which keeps it awake; 0 never sends one.",
    )
    overflow_dry_run: bool = Field(
        default=False, description="The valve stays shut, and the log says what it would have sent."
    )
    overflow_reachable_networks: Networks = Field(
        default=(), description="CIDRs, comma-separated, that RunPod can reach though they are not public (a VPN)."
    )

    webhook_secret: SecretStr | None = Field(
        default=None, description="Signs webhooks: `whsec_…`, as `diarize-queue webhooks secret` makes one."
    )
    webhook_secret_old: SecretStr | None = Field(
        default=None, description="The one before, as long as some receivers still go by it: webhooks carry both."
    )
    webhook_allowed_networks: Networks = Field(
        default=(), description="CIDRs, comma-separated, that webhooks may go to though they are not public."
    )
    webhook_give_up_hours: float = Field(
        default=24, gt=0, le=720, description="A webhook that nobody takes for so long is given up."
    )

    flower_basic_auth: SecretStr | None = Field(
        default=None, description="`user:password` for Flower, which does not start without; commas separate several."
    )
    flower_db: Path | None = Field(
        default=None, description="File in which Flower keeps its history over a restart; none: in memory."
    )
    flower_max_tasks: int = Field(default=10_000, ge=100, le=1_000_000, description="Jobs that Flower remembers.")
    flower_url_prefix: str = Field(
        default="", pattern=r"^[\w/.-]*$", description="Path below which a reverse proxy shows Flower."
    )
    flower_allow_control: bool = Field(
        default=False, description="Lets Flower's users revoke and start jobs, and stop workers."
    )

    @field_validator("webhook_secret", "webhook_secret_old")
    @classmethod
    def _is_a_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            secret_bytes(value.get_secret_value())
        return value

    @field_validator("runpod_endpoint_base_url", "runpod_management_base_url")
    @classmethod
    def _is_a_base_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
            raise ValueError("must be an http or https URL")
        return value.rstrip("/")

    @field_validator("runpod_endpoint_base_url")
    @classmethod
    def _is_the_endpoint_api(cls, value: str) -> str:
        if urlsplit(value).hostname == "api.runpod.io":
            raise ValueError("api.runpod.io is RunPod's management API; jobs go to https://api.runpod.ai/v2")
        return value

    @field_validator(
        "diarization_allowed_networks", "overflow_reachable_networks", "webhook_allowed_networks", mode="before"
    )
    @classmethod
    def _split_networks(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith(("redis://", "rediss://")):
            raise ValueError("must begin with redis:// or rediss://")
        try:
            parts = urlsplit(value.get_secret_value())
            is_whole = parts.port != 0 and re.fullmatch(r"(/\d*)?", parts.path)
        except ValueError:  # whose text may hold a piece of the password
            is_whole = None
        if not is_whole:
            raise ValueError(
                "must be as redis://:PASSWORD@host:6379/0, with what is special in the password percent-encoded"
            )
        return value

    @property
    def runtime_dir(self) -> Path:
        """Where workers keep their small files.

        Not `tempfile.gettempdir()`, which tries to write: on a full disk a health check would look elsewhere.
        """
        return self.queue_runtime_dir or Path(os.environ.get("TMPDIR") or "/tmp")  # noqa: S108

    @property
    def hides_gpus(self) -> bool:
        """Whether the environment keeps all GPUs from CUDA: an empty value does, which is none to pydantic."""
        return os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")

    def diarizer_options(self) -> DiarizerOptions:
        """What the diarizer is loaded with."""
        return DiarizerOptions(
            model=self.diarization_model,
            hf_token=self.hf_token.get_secret_value() if self.hf_token else None,
            device=self.diarization_device,
            precision=self.diarization_precision,
            embeddings=self.diarization_embeddings,
            allowed_networks=self.diarization_allowed_networks,
            recordings_dir=self.diarization_recordings_dir,
            max_bytes=self.diarization_max_bytes,
            max_audio_seconds=self.diarization_max_hours * 3600,
            download_timeout_seconds=self.diarization_download_timeout_seconds,
            stall_timeout_seconds=self.diarization_stall_timeout_seconds,
        )


def read_settings(secrets: Path = SECRETS) -> Settings:
    """Settings from the process's environment as it is now, and from files for what it does not say.

    Args:
        secrets: Folder of the files.

    Raises:
        SettingsError: A value is out of bounds, or a name that looks like ours is none.
    """
    faults = settings_faults(secrets)
    if faults:
        raise SettingsError(faults[0])
    return _read(secrets)


def settings_faults(secrets: Path = SECRETS) -> list[str]:
    """All that is wrong with the environment and those files, a line each; none of them repeats a value."""
    known = _names()
    faults = [
        f"{name} is not a setting; the ones with that beginning are {_alike(name, known)}"
        for name in sorted(os.environ)
        if name.upper().startswith(PREFIXES) and name.upper() not in known
    ]
    try:
        _read(secrets)
    except ValidationError as error:
        for one in error.errors(include_url=False, include_input=False):
            name = str(one["loc"][0]).upper() if one["loc"] else "settings"
            faults.append(f"{name}: {one['msg'].removeprefix('Value error, ')}")
    return faults


def settings_lookalikes() -> dict[str, str]:
    """Names in the environment that begin as nobody's own and differ little from a setting that is not there.

    The setting that each may have been meant for, by name. They cannot be refused: REDIS_…, RUNPOD_… and HF_… are
    others' names as well.
    """
    given = {name.upper() for name in os.environ}
    unset = sorted(_names() - given)
    close = {name: get_close_matches(name, unset, n=1, cutoff=ALIKE) for name in sorted(given - _names())}
    return {name: found[0] for name, found in close.items() if found}


def _read(secrets: Path) -> Settings:
    return Settings(_secrets_dir=secrets if secrets.is_dir() else None)


def _names() -> set[str]:
    return {name.upper() for name in Settings.model_fields}


def _alike(name: str, known: set[str]) -> str:
    prefix = name.upper().split("_", 1)[0] + "_"
    return ", ".join(sorted(other for other in known if other.startswith(prefix))) or "none"


@cache
def current_settings() -> Settings:
    """The settings of this process, read once.

    Raises:
        SettingsError: See `read_settings`.
    """
    return read_settings()
