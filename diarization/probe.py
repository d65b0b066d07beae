"""What torch, pyannote and the model are on this host, told by a process of its own.

    python -m diarization.probe device|model < options.json

It may hang in a driver, take gigabytes or be killed, and whoever asks goes on. The options (a token among them) come by
standard input, because other users of the host can read a command line; one JSON object goes to standard output.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from diarization.errors import ModelUnavailable


def device(options: Mapping[str, Any]) -> dict[str, Any]:
    """What torch sees of the GPUs.

    Args:
        options: `device`, as DIARIZATION_DEVICE.

    Returns:
        `torch` and `cuda` (versions), `count`, `says` (torch's warning), `too_old` (names of GPUs that this torch was
        not built for), and `chosen`, the device that a worker takes, or `error`.
    """
    # Each takes seconds, and is what is looked at: an error of theirs is an answer.
    import torch  # noqa: PLC0415

    from diarization.device import choose_device  # noqa: PLC0415

    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
    told: dict[str, Any] = {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "count": torch.cuda.device_count() if available else 0,
        "says": str(heard[0].message).splitlines()[0] if heard else "",
        "too_old": too_old(torch.cuda) if available else [],
    }
    try:
        return {**told, "chosen": str(choose_device(options["device"]))}
    except ModelUnavailable as error:
        return {**told, "error": str(error)}


def too_old(cuda: Any) -> list[str]:
    """GPUs that a torch was not built for, by name; `cuda` is `torch.cuda`."""
    built = [arch.removeprefix("sm_").rstrip("af") for arch in cuda.get_arch_list() if arch.startswith("sm_")]
    oldest = min(map(int, built), default=0)
    capabilities = [
        (cuda.get_device_name(index), cuda.get_device_capability(index)) for index in range(cuda.device_count())
    ]
    return [name for name, (major, minor) in capabilities if 10 * major + minor < oldest]


def model(options: Mapping[str, Any]) -> dict[str, Any]:
    """Load the pipeline on the CPU, or only find the diarizer where it is not ours: what that does is its own business.

    Args:
        options: `diarizer`, as DIARIZATION_DIARIZER; `model` and `token`, as `hub.load_pipeline` takes them.

    Returns:
        `name`, `revision`, `seconds` and `telemetry` (whether pyannote's is on), or `error`.
    """
    began = time.monotonic()
    module_name, _, function_name = options["diarizer"].partition(":")
    name, revision = options["diarizer"], None
    try:
        if module_name == "diarization.pipeline":
            from diarization.hub import load_pipeline  # noqa: PLC0415 - see `device`

            loaded = load_pipeline(options["model"], options["token"])
            name, revision = loaded.name, loaded.revision
        else:
            getattr(importlib.import_module(module_name), function_name)
    except ModelUnavailable as error:
        return {"error": str(error)}
    except (ImportError, AttributeError) as error:
        return {"error": f"{options['diarizer']} cannot be imported: {error}"}
    telemetry = False
    if "pyannote.audio" in sys.modules:
        from diarization.upstream import is_metrics_enabled  # noqa: PLC0415

        telemetry = bool(is_metrics_enabled())
    return {"name": name, "revision": revision, "seconds": time.monotonic() - began, "telemetry": telemetry}


QUESTIONS: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {"device": device, "model": model}


def main() -> None:
    """Answer one question."""
    options = json.load(sys.stdin)
    with contextlib.redirect_stdout(io.StringIO()):
        answer = QUESTIONS[sys.argv[1]](options)
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
