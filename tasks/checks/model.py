"""Whether the model loads, as in a worker that starts."""

from __future__ import annotations

from tasks.checks.finding import GPU, Check, Fault, Finding, Subject, fine, risk
from tasks.checks.probing import ProbeFailed, missing_libraries, probe

MODEL_SECONDS = 120.0

NO_LIBRARIES = Fault(
    "no_libraries",
    "torch or pyannote.audio is not installed",
    "pip install 'diarize-queue[worker]' in this environment; a bridge and a producer need neither (--role)",
)
NO_MODEL = Fault(
    "no_model",
    "the model is not there, not complete, or the hub refuses it (401, 403, not found); no worker starts",
    "do what the line says; or unset DIARIZATION_MODEL: the bundled model needs neither token nor network",
)
MODEL_FAILS = Fault(
    "model_fails",
    "the process that loads the model dies or hangs; no worker starts",
    "killed (-9) is the kernel, short of memory; no answer is a slow disk or hub: raise QUEUE_START_TIMEOUT_SECONDS",
)
SLOW_START = risk(
    "slow_start",
    "the model takes most of the time that a worker has to start",
    "raise QUEUE_START_TIMEOUT_SECONDS, or bring the model to a faster disk",
)
TELEMETRY = Fault(
    "telemetry",
    "pyannote reports each job to its makers",
    "import pyannote by diarization.upstream in your diarizer, or set PYANNOTE_METRICS_ENABLED=0",
)


def model(subject: Subject) -> Finding:
    """Load it, on the CPU, so that a GPU at work is left alone."""
    options = subject.settings.diarizer_options()
    is_ours = subject.settings.diarization_diarizer.startswith("diarization.pipeline:")
    if is_ours and (missing := missing_libraries()):
        return NO_LIBRARIES.found(f"not installed: {', '.join(missing)}")
    asked = {"diarizer": subject.settings.diarization_diarizer, "model": options.model, "token": options.hf_token}
    try:
        told = probe("model", asked, MODEL_SECONDS)
    except ProbeFailed as error:
        return MODEL_FAILS.found(f"the process that loads {options.model} failed: {error}")
    if "error" in told:
        return NO_MODEL.found(told["error"])
    if told["telemetry"]:
        return TELEMETRY.found("pyannote's telemetry is on")
    at = f" at {told['revision'][:7]}" if told["revision"] else ""
    says = f"{told['name']}{at} loads in {told['seconds']:.1f} s, telemetry is off"
    limit = subject.settings.queue_start_timeout_seconds
    return SLOW_START.found(f"{says}; a worker has {limit:g} s") if told["seconds"] > limit / 2 else fine(says)


CHECKS = (
    Check(
        "host",
        "model",
        "DIARIZATION_MODEL, loaded on the CPU",
        model,
        (NO_LIBRARIES, NO_MODEL, MODEL_FAILS, SLOW_START, TELEMETRY),
        GPU,
        timeout_seconds=MODEL_SECONDS + 5,
    ),
)
