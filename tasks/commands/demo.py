"""The demo: a server, a worker and a recording on this machine, who speaks when, and stock pyannote beside it.

All of it is the real thing: the job goes through Celery and Redis to a worker process, which fetches the recording over
HTTP. Whatever is started here ends with the demo, however the demo ends.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError
from rich.console import Console
from rich.status import Status

from diarization.timeline import timeline_png, timeline_svg
from diarization.turns import Diarization, Turn
from tasks.commands.console import duration, error_text, make_console, make_table, speakers_table, turns_table
from tasks.commands.waiting import POLL_SECONDS, JobsDisplay, wait_for
from tasks.record import State
from tasks.records import Records
from tasks.server import connect
from tasks.settings import Settings, read_settings
from tasks.tether import end, spawn_tethered
from tasks.valkey import EmbeddedValkey

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "recordings" / "sample" / "sample.wav"
REFERENCE = SAMPLE.with_suffix(".rttm")
PICTURES = ROOT / ".cache" / "demo"

JOB_TIMEOUT_SECONDS = 900.0
STOCK_TIMEOUT_SECONDS = 900.0
STOP_SECONDS = 10.0
LOG_LINES = 15
# The same turns as the 32 and 32 of the model's config, and on a CPU twice as fast.
STOCK_BATCHES = ("--segmentation-batch", "8", "--embedding-batch", "1")


class DemoError(Exception):
    """The demo cannot go on. The message says why; lines of a log may follow."""


class _Sample(BaseHTTPRequestHandler):
    """Serves the sample recording, whatever is asked for."""

    def do_GET(self) -> None:
        """Answer."""
        data = SAMPLE.read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", "audio/wav")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def run_demo() -> bool:
    """Run it, printing as it goes. Whether everything was as it should be.

    Raises:
        SettingsError: The environment holds a setting that cannot be used.
        QueueUnavailable: REDIS_URL is set, and cannot be reached.
        EmbeddedValkeyError: REDIS_URL is not set, and no server can be started.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    console = make_console()
    console.print("Who spoke when: one recording through the queue, on this machine\n", style="bold")
    try:
        if not SAMPLE.exists():
            raise DemoError("it needs the recordings of the source tree: clone the repository and run it there")
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="diarize-demo-")))
            stack.enter_context(_queue(console))
            ours = _diarize(console, folder)
            _print_answer(console, ours)
            return _compare(console, ours, folder)
    except DemoError as error:
        make_console(stderr=True).print(f"error: demo: {error}", style="red")
        return False


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(128 + number)


@contextmanager
def _queue(console: Console) -> Iterator[None]:
    """A server of the demo's own, or keys of its own on the one that REDIS_URL names."""
    given, prefix = read_settings(), f"diarize-demo-{secrets.token_hex(4)}:"
    with ExitStack() as stack:
        # Written, not read: the settings, and those of every child from here on, are read after this.
        environment = os.environ  # noqa: TID251
        environment.update(REDIS_KEY_PREFIX=prefix, DIARIZATION_ALLOWED_NETWORKS="127.0.0.0/8", WORKER_ROLE="gpu")
        if "redis_url" in given.model_fields_set:
            Records(read_settings()).newest(limit=1)
            stack.callback(_forget, read_settings())
            console.print("server      the one of REDIS_URL, with keys of the demo's own")
        else:
            server = stack.enter_context(EmbeddedValkey())
            environment["REDIS_URL"] = server.url
            console.print(f"server      Valkey at {server.url}, for this demo alone")
        yield


def _forget(settings: Settings) -> None:
    with suppress(RedisError), connect(settings, patient=False) as client:
        for key in client.scan_iter(match=f"{settings.redis_key_prefix}*"):
            client.delete(key)


def _diarize(console: Console, folder: Path) -> Diarization:
    """Start a worker, submit the sample as a producer does, and wait for its turns."""
    from tasks.diarize import diarize  # noqa: PLC0415 - configured on import, hence after the settings are made

    name = f"demo-{secrets.token_hex(4)}@localhost"
    command = ["celery", "-A", "tasks", "worker", "--hostname", name, "--loglevel", "info"]
    with _serve_sample() as url, _module("the worker", command, folder / "worker.log") as worker:
        console.print("worker      celery -A tasks worker")
        seconds = worker.wait_until(
            lambda: _answers(diarize.app, name),
            read_settings().queue_start_timeout_seconds,
            console.status("            loads the model …"),
        )
        console.print(f"            ready after {duration(seconds)}")
        console.print(f'recording   diarize.delay("{url}")\n')
        job = diarize.delay(url)
        with JobsDisplay(make_console(stderr=True)) as display:
            record = wait_for(diarize.records, [job.id], JOB_TIMEOUT_SECONDS, display, worker.check)[0]
    if not record.state.ended:
        raise DemoError(f"the job has not ended within {JOB_TIMEOUT_SECONDS:g} s")
    if record.state is not State.DONE:
        raise DemoError(f"the job is {record.state}: {error_text(record.error)}")
    return Diarization.from_json(record.result)


def _answers(app: Celery, worker_name: str) -> bool:
    try:
        return bool(app.control.ping(destination=[worker_name], timeout=0.5))
    except OperationalError:  # Redis does not answer; the job will say so, if that lasts
        return False


def _print_answer(console: Console, ours: Diarization) -> None:
    console.print(turns_table(ours), "", speakers_table(ours), "", sep="\n")
    stages = make_table("STAGE", "SECONDS")
    for stage, seconds in ours.provenance.stage_seconds.items():
        stages.add_row(stage, f"{seconds:.2f}")
    total = math.fsum(ours.provenance.stage_seconds.values())
    stages.add_row("all", f"{total:.2f}", style="bold")
    console.print(stages, f"{duration(ours.audio_seconds)} of audio on {ours.provenance.gpu or 'the CPU'}\n", sep="\n")


def _compare(console: Console, ours: Diarization, folder: Path) -> bool:
    """Stock pyannote on the same recording, and both against the reference. Whether the turns are as they should be."""
    stock, stock_seconds = _run_stock(console, ours, folder)
    from diarization.scoring import der, read_rttm  # noqa: PLC0415 - pyannote.metrics takes seconds to import

    reference = read_rttm(REFERENCE)
    seconds = ours.provenance.stage_seconds
    our_seconds = math.fsum(seconds.values()) - seconds.get("download", 0.0) - seconds.get("decode", 0.0)
    table = make_table("", "DER", "MISSED", "FALSE ALARM", "CONFUSION", "SECONDS")
    for who, answer, took in (("this queue", ours, our_seconds), ("stock", stock, stock_seconds)):
        score = der(reference, answer.segments, collar=0.0, skip_overlap=False)
        parts = (score.missed, score.false_alarm, score.confusion)
        table.add_row(who, f"{score.der:.2%}", *(f"{part:.2f} s" for part in parts), f"{took:.1f}")
    console.print(table)
    console.print("DER against the reference: collar=0, overlap scored. Seconds: without download and decode.")
    same = (ours.segments, ours.exclusive_segments) == (stock.segments, stock.exclusive_segments)
    if same:
        console.print(f"The turns equal stock's, all {len(ours.segments)} of them.\n", style="green")
    else:
        missing, extra = set(stock.segments) - set(ours.segments), set(ours.segments) - set(stock.segments)
        differ = f"The turns differ from stock's: {len(missing)} of its {len(stock.segments)} are not among ours, "
        console.print(f"{differ}{len(extra)} of our {len(ours.segments)} not among its.\n", style="red")
    _draw(console, ours, reference)
    return same or ours.provenance.precision == "fast"


def _run_stock(console: Console, ours: Diarization, folder: Path) -> tuple[Diarization, float]:
    settings, on_cpu = read_settings(), ours.provenance.gpu is None
    command = ["diarization.stock", str(SAMPLE), "--model", settings.diarization_model]
    command += ["--device", settings.diarization_device, *(STOCK_BATCHES if on_cpu else ())]
    how = "with batches of 8 and 1, which give the same turns sooner" if on_cpu else "as it comes"
    console.print(f"Stock pyannote on the same recording, {how}:")
    with _module("stock pyannote", command, folder / "stock.log", folder / "stock.json") as stock:
        busy = console.status("takes about a minute …")
        stock.wait_until(lambda: stock.process.poll() == 0, STOCK_TIMEOUT_SECONDS, busy)
    answer = json.loads((folder / "stock.json").read_text())
    return Diarization.from_json(answer["diarization"]), float(answer["seconds"])


def _draw(console: Console, ours: Diarization, reference: Sequence[Turn]) -> None:
    """Write the picture. Its path is the last line."""
    try:
        PICTURES.mkdir(parents=True, exist_ok=True)
        folder = PICTURES
    except OSError:  # a source tree that is not ours to write to
        folder = Path(tempfile.mkdtemp(prefix="diarize-demo-"))
    pictures = {".svg": timeline_svg(ours, title=SAMPLE.name, reference=reference).encode()}
    with suppress(ModuleNotFoundError):  # pillow is an extra
        pictures = {".png": timeline_png(ours, title=SAMPLE.name, reference=reference), **pictures}
    console.print("The timeline, with the reference below each speaker:")
    for suffix, data in pictures.items():
        path = folder / f"{SAMPLE.stem}{suffix}"
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_bytes(data)
        part.replace(path)  # at once: another demo may be writing the same
        console.print(str(path), soft_wrap=True)


@contextmanager
def _serve_sample() -> Iterator[str]:
    """The sample's URL while a thread serves it on loopback."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Sample) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/{SAMPLE.name}"
        finally:
            server.shutdown()


@dataclass(frozen=True)
class _Module:
    """A Python module that runs in a process of its own, its log in a file; `may_end` if it has an end."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    may_end: bool

    def check(self) -> None:
        """Raises DemoError with the last lines of the log where the process has ended and should not have."""
        if self.process.poll() is not None and (self.process.returncode or not self.may_end):
            last = "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_LINES:])
            raise DemoError(f"{self.name} ended with exit code {self.process.returncode}; it wrote last:\n{last}")

    def wait_until(self, condition: Callable[[], bool], timeout_seconds: float, busy: Status) -> float:
        """The seconds it took until `condition` held."""
        began = time.monotonic()
        with busy:
            while not condition():
                self.check()
                if time.monotonic() - began > timeout_seconds:
                    raise DemoError(f"{self.name} took longer than {timeout_seconds:g} s")
                time.sleep(POLL_SECONDS)
        return time.monotonic() - began


@contextmanager
def _module(name: str, command: Sequence[str], log: Path, output: Path | None = None) -> Iterator[_Module]:
    """Run `python -m …` with its output in a file; one without such a file is to run until it is told to end."""
    with log.open("wb") as errors, (output or log).open("ab") as lines:
        process = spawn_tethered([sys.executable, "-m", *command], stdout=lines, stderr=errors, folder=ROOT)
    try:
        yield _Module(name, process, log, may_end=output is not None)
    finally:
        end(process, STOP_SECONDS)
