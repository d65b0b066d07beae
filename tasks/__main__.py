"""The command line: `python -m tasks …`, also installed as `diarize-queue`.

Exit codes: 0 done, 1 a check or a job failed, 2 wrong usage, 3 nothing to connect to, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from diarization.errors import DiarizationError, InvalidJob, QueueUnavailable, UrlNotAllowed
from tasks.bench_command import bench
from tasks.budget_command import app as budget_app
from tasks.console import complain, jobs_table, json_line
from tasks.dead import app as dead_app
from tasks.doctor_command import doctor
from tasks.flower_command import FlowerError, flower
from tasks.health_command import healthcheck
from tasks.metrics_command import metrics
from tasks.orders_command import drain, pause, resume
from tasks.output import (
    Ids,
    Json,
    OutputError,
    complain_unknown,
    print_line,
    show_jobs,
)
from tasks.queue_command import queue
from tasks.record import State
from tasks.records import Records
from tasks.result_command import result
from tasks.settings import SettingsError, current_settings
from tasks.status_command import status
from tasks.submit_command import submit
from tasks.valkey import EmbeddedValkeyError
from tasks.waiting import JobLost
from tasks.webhooks_command import app as webhooks_app

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
    epilog="Redis is found by REDIS_URL. Exit codes: 0 done, 1 a job failed, 2 wrong usage, 3 nothing to connect to.",
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.add_typer(dead_app, name="dead")
app.add_typer(budget_app, name="budget")
app.add_typer(webhooks_app, name="webhooks")
app.command(epilog="Example: diarize-queue submit https://example.org/meeting.mp3 --wait --format rttm")(submit)
app.command(epilog="Example: diarize-queue result 4f3c2a9e-5b1d-4c56-9a57-0d4f5e6a7b8c -f srt -o meeting.srt")(result)
app.command(epilog="Example: diarize-queue status 4f3c2a9e-5b1d-4c56-9a57-0d4f5e6a7b8c --watch")(status)
app.command(epilog="Example: diarize-queue queue --watch --every 5")(queue)
app.command(epilog="Example: diarize-queue metrics --port 9808")(metrics)
app.command(epilog="Example: diarize-queue doctor --role producer")(doctor)
app.command(epilog="Example: diarize-queue healthcheck")(healthcheck)
app.command(epilog="Example: diarize-queue pause --reason 'the disk is full'")(pause)
app.command(epilog="Example: diarize-queue resume")(resume)
app.command(epilog="Example: diarize-queue drain celery@gpu3 --reason 'new driver' --wait")(drain)
app.command(epilog="Example: diarize-queue bench meeting.wav --reference meeting.rttm")(bench)
app.command(epilog="Example: FLOWER_BASIC_AUTH=ada:… diarize-queue flower")(flower)


@app.callback(invoke_without_command=True)
def _main(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(WRONG_USAGE)


@app.command("list", epilog="Example: diarize-queue list --state dead --limit 20")
def list_jobs(
    state: Annotated[State | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 20,
    json_lines: Json = False,
) -> None:
    """List jobs, those that changed last first."""
    records = Records(current_settings()).newest(state, limit)
    show_jobs(records, jobs_table, "no jobs", json_lines=json_lines)


@app.command(epilog="Example: diarize-queue cancel 4f3c2a9e-5b1d-4c56-9a57-0d4f5e6a7b8c")
def cancel(ids: Ids, json_lines: Json = False) -> None:
    """Cancel jobs: a waiting one never starts, a running one stops after its current batch."""
    from tasks.diarize import diarize  # noqa: PLC0415 - Celery takes half a second to import

    unknown = False
    for job_id in ids:
        before = diarize.cancel(job_id)
        if before is None:
            unknown = True
            complain_unknown(job_id)
        elif json_lines:
            print_line(json_line({"id": job_id, "state_before": str(before)}))
        else:
            print_line(f"{job_id} {_cancelled(before)}")
    raise typer.Exit(FAILED if unknown else DONE)


@app.command(epilog="Example: diarize-queue delete 4f3c2a9e-5b1d-4c56-9a57-0d4f5e6a7b8c")
def delete(ids: Ids, json_lines: Json = False) -> None:
    """Forget ended jobs, with all that is stored of them: record, result, error, webhook."""
    from tasks.diarize import diarize  # noqa: PLC0415 - Celery takes half a second to import

    failed = False
    for job_id in ids:
        try:
            known = diarize.delete(job_id)
        except InvalidJob as error:
            failed = True
            complain(error.code, error.message)
            continue
        if not known:
            failed = True
            complain_unknown(job_id)
        else:
            print_line(json_line({"id": job_id, "outcome": "deleted"}) if json_lines else f"{job_id} deleted")
    raise typer.Exit(FAILED if failed else DONE)


@app.command(epilog="Example: diarize-queue demo")
def demo() -> None:
    """Show it all on this machine: a server, a worker, a recording, who speaks when, and stock pyannote beside it."""
    from tasks.demo import run_demo  # noqa: PLC0415 - of no use to the other commands

    raise typer.Exit(DONE if run_demo() else FAILED)


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


def _cancelled(before: State) -> str:
    if before in (State.QUEUED, State.DUE):
        return "was waiting: will not start"
    if before is State.RUNNING:
        return "runs: asked to stop"
    return f"had ended already: {before}"


if __name__ == "__main__":
    main()
