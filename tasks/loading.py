"""The diarizer of this process, loaded once."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from diarization.diarizer import Diarizer
from diarization.errors import ModelUnavailable
from diarization.turns import Provenance
from tasks.record import JobRecord
from tasks.settings import Settings

_loaded: list[Diarizer | Provider] = []


@runtime_checkable
class Provider(Protocol):
    """Has jobs done elsewhere; what it has begun for a job stands in the job's record."""

    def of(self, record: JobRecord) -> Diarizer:
        """The diarizer for that job."""


def load(settings: Settings, device_lock: Path | None = None) -> Diarizer:
    """Load the diarizer that DIARIZATION_DIARIZER names; `loaded` has it from then on.

    Args:
        settings: What it is loaded with.
        device_lock: See `DiarizerOptions`.

    Raises:
        ModelUnavailable: It cannot be loaded; the message says why and what to do.
    """
    target = settings.diarization_diarizer
    module_name, _, function_name = target.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except ModuleNotFoundError as error:
        hint = "; install the model's libraries: pip install 'diarize-queue[worker]'" if _is_extra(error) else ""
        raise ModelUnavailable(f"{target} cannot be imported: {error}{hint}") from error
    except (ImportError, AttributeError) as error:
        raise ModelUnavailable(f"{target} cannot be imported: {error}") from error
    diarizer: Diarizer = function(replace(settings.diarizer_options(), device_lock=device_lock))
    use(diarizer)
    return diarizer


def use(diarizer: Diarizer | Provider) -> None:
    """Let `loaded` give this one from now on."""
    _loaded[:] = [diarizer]


def loaded() -> Diarizer | Provider:
    """The diarizer of this process.

    Raises:
        ModelUnavailable: Nothing is loaded: this process is no worker, or its gate was got round.
    """
    if not _loaded:
        raise ModelUnavailable("no model is loaded in this process")
    return _loaded[0]


def about(diarizer: Diarizer) -> dict[str, Any]:
    """`device`, `gpu` and `model` of a diarizer that has an attribute `provenance`; nothing of any other."""
    provenance = getattr(diarizer, "provenance", None)
    return provenance.model_dump(include={"device", "gpu", "model"}) if isinstance(provenance, Provenance) else {}


def _is_extra(error: ModuleNotFoundError) -> bool:
    return (error.name or "").partition(".")[0] in {"torch", "torchaudio", "pyannote", "numpy", "imageio_ffmpeg"}
