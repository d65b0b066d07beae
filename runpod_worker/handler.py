"""RunPod's entry point: loads the model, then takes jobs by RunPod's SDK.

    python -m runpod_worker.handler
    python -u runpod_worker/handler.py         the same, for a start command that names the file

Without a working model the process ends before it takes a job. For a try by hand the SDK knows `--test_input '{…}'` and
`--rp_serve_api`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

if not __package__:  # started by its path: then the folder of this file is where Python looks, and not the root
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from diarization.diarizer import Diarizer
from diarization.errors import DeviceLost, DiarizationError
from runpod_worker.contract import write_error
from runpod_worker.job import run
from tasks.loading import load
from tasks.settings import Settings, SettingsError, read_settings

logger = logging.getLogger("runpod_worker")

EXIT_UNUSABLE = 78
"""EX_CONFIG of sysexits.h: started as it is, this worker can never work."""
EXIT_HANGS = 70
"""EX_SOFTWARE of sysexits.h: a job that does not end."""


class Handler:
    """What the SDK calls for each job.

    The model has one thread, in which it is loaded and in which every job runs: so no two jobs are ever on the GPU
    together, and the SDK's loop stays free to hear that a job is to be stopped, and of SIGTERM.

    Attributes:
        config: What the SDK is started with.
    """

    def __init__(self, settings: Settings) -> None:
        """Load the model.

        Raises:
            DiarizationError: There is none that works.
        """
        self._patience_seconds = settings.queue_stall_seconds
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        # Local recordings and the bridge are for the own house; here there is neither.
        here = settings.model_copy(update={"worker_role": "gpu", "diarization_recordings_dir": None})
        loading: Future[Diarizer] = self._thread.submit(load, here)
        self._diarizer = loading.result()
        self.config: dict[str, Any] = {"handler": self.handle}

    async def handle(self, job: dict[str, Any]) -> dict[str, Any]:
        """Run a job: the result, or `{"error": "<code>: <message>"}`.

        The SDK stops a job by cancelling this coroutine, which then lasts until the job has heard of it: the SDK takes
        the next one only after that. Where the job does not hear, the process ends, and RunPod starts another.
        """
        stop = threading.Event()
        arguments = (self._diarizer, str(job.get("id")), job.get("input"), stop)
        work = asyncio.get_running_loop().run_in_executor(self._thread, run, *arguments)
        try:
            outcome = await asyncio.shield(work)
        except asyncio.CancelledError:
            stop.set()
            _, hangs = await asyncio.wait([work], timeout=self._patience_seconds)
            if hangs:
                logger.critical("a stopped job goes on for %g s: this worker ends", self._patience_seconds)
                os._exit(EXIT_HANGS)
            raise
        if isinstance(outcome, DeviceLost):
            self.config["refresh_worker"] = True  # the SDK ends after this job, and has RunPod replace the worker
        return write_error(outcome) if isinstance(outcome, DiarizationError) else outcome


def main() -> None:
    """Run until RunPod stops the worker.

    Raises:
        SystemExit: With `EXIT_UNUSABLE` where no job can ever be done; the log's last line says why.
    """
    logging.basicConfig(level=logging.INFO, format="%(levelname)-8s %(name)s: %(message)s")
    # Written for torch and for the SDK, neither of which is loaded yet. Threads that spin take the core that others
    # need; the SDK's own default writes every result into the log.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # noqa: TID251
    os.environ.setdefault("RUNPOD_LOG_LEVEL", os.environ.get("RUNPOD_DEBUG_LEVEL", "INFO"))  # noqa: TID251
    began = time.monotonic()
    try:
        handler = Handler(read_settings())
    except DiarizationError as error:
        _refuse(f"{error.code}: {error.message}. {error.advice}")
    except SettingsError as error:
        _refuse(str(error))
    except Exception as error:  # without a model there is no worker
        logger.exception("the model cannot be loaded")
        _refuse(f"{type(error).__name__}: {error}")
    logger.info("model loaded in %.1f s", time.monotonic() - began)
    # It takes seconds to import, and sets up logging for the whole process: for a worker alone.
    from runpod import serverless  # noqa: PLC0415

    serverless.start(handler.config)


def _refuse(reason: str) -> NoReturn:
    logger.critical("this worker cannot start: %s", reason)
    raise SystemExit(EXIT_UNUSABLE)


if __name__ == "__main__":
    main()
