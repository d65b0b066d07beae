"""The command line: `python -m tasks …`, also installed as `diarize-queue`.

Exit codes: 0 done, 1 a check or a job failed, 2 wrong usage, 3 nothing to connect to, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import typer

from diarization.errors import DiarizationError, InvalidJob, QueueUnavailable, UrlNotAllowed
from tasks.commands.bench import bench
from tasks.commands.budget import app as budget_app
from tasks.commands.console import complain
from tasks.commands.dead import app as dead_app
from tasks.commands.doctor import doctor
from tasks.commands.flower import FlowerError, flower
from tasks.commands.health import healthcheck
from tasks.commands.jobs import cancel, delete, list_jobs
from tasks.commands.metrics import metrics
from tasks.commands.orders import drain, pause, resume
from tasks.commands.output import OutputError
from tasks.commands.queue import queue
from tasks.commands.result import result
from tasks.commands.status import status
from tasks.commands.submit import submit
from tasks.commands.waiting import JobLost
from tasks.commands.webhooks import app as webhooks_app
from tasks.settings import SettingsError
from tasks.valkey import EmbeddedValkeyError

DONE, FAILED, WRONG_USAGE, NO_CONNECTION, INTERRUPTED = 0, 1, 2, 3, 130

KNOWN_ENDS: dict[type[Exception], tuple[str, int]] = {
    SettingsError: ("settings", WRONG_USAGE),
    EmbeddedValkeyError: ("no_server", NO_CONNECTION),
    OutputError: ("output", FAILED),
    JobLost: ("job_lost", FAILED),
    FlowerError: ("flower", WRONG_USAGE),
}

app = typer.Typer(
    help="Who spoke when: submit recordings to the queue and read their speaker turns.",
    epilog="Redis is found by REDIS_URL. Exit codes: 0 done, 1 a check or a job failed, 2 wrong usage, 3 nothing to "
    "connect to, 130 interrupted.",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)

JOBS, FLEET, HOST = "Jobs", "The fleet", "This host"
ID = "4f3c2a9e-5b1d-4c56-9a57-0d4f5e6a7b8c"


def _add(panel: str, example: str, command: Callable[..., None], name: str | None = None) -> None:
    app.command(name, epilog=f"Example: {example}", rich_help_panel=panel)(command)


_add(JOBS, "diarize-queue submit https://example.org/meeting.mp3 --wait --format rttm", submit)
_add(JOBS, f"diarize-queue status {ID} --watch", status)
_add(JOBS, f"diarize-queue result {ID} -f srt -o meeting.srt", result)
_add(JOBS, "diarize-queue list --state dead --limit 20", list_jobs, "list")
_add(JOBS, f"diarize-queue cancel {ID}", cancel)
_add(JOBS, f"diarize-queue delete {ID}", delete)
app.add_typer(dead_app, name="dead", rich_help_panel=JOBS)
app.add_typer(webhooks_app, name="webhooks", rich_help_panel=JOBS)
_add(FLEET, "diarize-queue queue --watch --every 5", queue)
_add(FLEET, "diarize-queue pause --reason 'the disk is full'", pause)
_add(FLEET, "diarize-queue resume", resume)
_add(FLEET, "diarize-queue drain celery@gpu3 --reason 'new driver' --wait", drain)
app.add_typer(budget_app, name="budget", rich_help_panel=FLEET)
_add(FLEET, "FLOWER_BASIC_AUTH=ada:… diarize-queue flower", flower)
_add(FLEET, "diarize-queue metrics --port 9808", metrics)
_add(HOST, "diarize-queue doctor --role producer", doctor)
_add(HOST, "diarize-queue healthcheck", healthcheck)
_add(HOST, "diarize-queue bench meeting.wav --reference meeting.rttm", bench)


@app.callback(invoke_without_command=True)
def _main(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(WRONG_USAGE)


def demo() -> None:
    """Show it all on this machine: a server, a worker, a recording, who speaks when, and stock pyannote beside it."""
    from tasks.commands.demo import run_demo  # noqa: PLC0415 - of no use to the other commands

    raise typer.Exit(DONE if run_demo() else FAILED)


_add(HOST, "diarize-queue demo", demo)


def main() -> None:
    """Run the command line and end the process."""
    sys.exit(_run())


def _run() -> int:
    try:
        code = int(app(standalone_mode=False) or DONE)
        sys.stdout.flush()
        return code
    except typer.TyperException as error:
        command = getattr(getattr(error, "ctx", None), "command_path", "diarize-queue")
        complain("usage", error.format_message(), f"See {command} --help.")
        return error.exit_code
    except typer.Abort:
        complain("aborted", "nothing was done")
        return FAILED
    except tuple(KNOWN_ENDS) as error:
        name, exit_code = KNOWN_ENDS[type(error)]
        complain(name, str(error))
        return exit_code
    except DiarizationError as error:
        complain(error.code, error.message, error.advice)
        if isinstance(error, InvalidJob | UrlNotAllowed):
            return WRONG_USAGE
        return NO_CONNECTION if isinstance(error, QueueUnavailable) else FAILED
    except OSError as error:
        # What is left in the buffer would fail once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # who reads no further knows it
            complain("output", f"standard output cannot be written: {error.strerror}")
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    main()
