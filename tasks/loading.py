"""The diarizer of this process, loaded once."""

from __future__ import annotations

import importlib
from typing import Any

from diarization.diarizer import Diarizer
from diarization.errors import ModelUnavailable
from diarization.turns import Provenance
from tasks.settings import Settings

_loaded: list[Diarizer] = []


def load(settings: Settings) -> Diarizer:
    """Load the diarizer that the role and DIARIZATION_DIARIZER name; `loaded` has it from then on.

    Raises:
        ModelUnavailable: It cannot be loaded; the message says why and what to do.
    """
    target = "tasks.runpod_bridge:load" if settings.worker_role == "bridge" else settings.diarization_diarizer
    module_name, _, function_name = target.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except ModuleNotFoundError as error:
        hint = "; install the model's libraries: pip install 'diarize-queue[worker]'" if _is_extra(error) else ""
        raise ModelUnavailable(f"{target} cannot be imported: {error}{hint}") from error
    except (ImportError, AttributeError) as error:
        raise ModelUnavailable(f"{target} cannot be imported: {error}") from error
    diarizer: Diarizer = function(settings.diarizer_options())
    _loaded[:] = [diarizer]
    return diarizer


def loaded() -> Diarizer:
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
