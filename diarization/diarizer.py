"""The seam: a local GPU and a remote endpoint are both a `Diarizer`."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Protocol

from diarization.recording import Recording
from diarization.turns import Diarization, SpeakerHints

BUNDLED_MODEL = Path(__file__).resolve().parent.parent / "models" / "speaker-diarization-community-1"
"""Comes with the source tree and the image; a wheel is without."""

STAGES = ("download", "decode", "segmentation", "embedding", "clustering")
NETWORKS = ("segmentation", "embedding")
"""Stages that processes of one GPU go through one at a time, see `device_lock.py`."""


class Report(Protocol):
    """Hears of progress after each batch."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """`done` of `total` parts of a stage are finished.

        Args:
            stage: One of `STAGES`.
            done: How many: bytes of a download, seconds of decoded audio, else parts of the model's own work.
            total: Likewise; 0 where it is unknown.

        Raises:
            Cancelled: The job is no longer wanted; the diarizer lets it pass and cleans up.
        """


class Diarizer(Protocol):
    """Turns a recording into speaker turns."""

    def diarize(self, recording: Recording, hints: SpeakerHints, report: Report) -> Diarization:
        """Who spoke when in `recording`.

        Args:
            recording: Where it is, and the headers to fetch it with. Never to be shown but as `str(recording)`.
            hints: What the caller knows about the number of speakers; what cannot be met is a warning of the result.
            report: To be called after each batch, a few times a second at most: a job is cancelled by what it raises.

        Raises:
            PermanentError: The same recording would fail again.
            TransientError: It may succeed later or elsewhere.
            Cancelled: Raised by `report`.
        """


@dataclass(frozen=True)
class DiarizerOptions:
    """What a diarizer is loaded with. Bytes, seconds and hours as the names say.

    Attributes:
        model: Folder of a pipeline, or its name on the model hub.
        hf_token: Token for the model hub.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: `exact` (stock's answer) or `fast`.
        embeddings: Whether results carry each speaker's voice embedding.
        allowed_networks: Recordings may be fetched from these though they are not public.
        recordings_dir: `file://` URLs below it are read; none where it is None.
        max_bytes: A larger recording is refused.
        max_audio_seconds: A longer recording is refused.
        download_timeout_seconds: For a whole download.
        stall_timeout_seconds: Without a byte from the server.
        device_lock: A file that is the same for all processes that share the device, and compute one at a time; None
            where there is one alone.
    """

    model: str
    hf_token: str | None = field(default=None, repr=False)
    device: str = "auto"
    precision: str = "exact"
    embeddings: bool = False
    allowed_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    recordings_dir: Path | None = None
    max_bytes: int = 4 * 1024**3
    max_audio_seconds: float = 12 * 3600.0
    download_timeout_seconds: float = 3600.0
    stall_timeout_seconds: float = 30.0
    device_lock: Path | None = None
