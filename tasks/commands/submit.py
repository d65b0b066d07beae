"""The command `submit`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from diarization.errors import InvalidJob
from tasks.commands.completion import providers
from tasks.commands.console import as_json, json_line, make_console, printable
from tasks.commands.given import STDIN, checked_urls, read_given
from tasks.commands.orders import warn_if_paused
from tasks.commands.output import Format, Json, Output, print_line
from tasks.commands.waiting import JobsDisplay, wait_for
from tasks.job import BATCH_PRIORITY
from tasks.records import Records
from tasks.settings import current_settings

DONE, FAILED, INTERRUPTED = 0, 1, 130


def submit(
    recordings: Annotated[
        list[str],
        typer.Argument(
            metavar="RECORDING",
            help="URLs (http, https, file), or files in the folder of DIARIZATION_RECORDINGS_DIR. `-` reads them from "
            "stdin, one a line; lines that are blank or begin with # are passed over.",
        ),
    ],
    num_speakers: Annotated[int | None, typer.Option(help="How many people speak, where that is known.")] = None,
    min_speakers: Annotated[int | None, typer.Option(help="At least so many speak.")] = None,
    max_speakers: Annotated[int | None, typer.Option(help="At most so many speak.")] = None,
    provider: Annotated[
        str | None, typer.Option(help="`local` keeps the job on your own GPUs.", autocompletion=providers)
    ] = None,
    expected_audio_seconds: Annotated[float | None, typer.Option(help="How long the recording is, if known.")] = None,
    deadline_seconds: Annotated[
        float | None, typer.Option(help="The job should be done so long after it may start. Ends no job.")
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option(help="'Name: value', sent when the recording is fetched. `@FILE` reads such lines. Repeatable."),
    ] = None,
    priority: Annotated[
        int | None,
        typer.Option(min=0, max=9, help="0 is first in line, 9 last. Default: 6 for one recording, 9 for a batch."),
    ] = None,
    task_id: Annotated[str | None, typer.Option(help="The job's id; submitting it twice makes one job.")] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="A name for what is asked; all jobs of one name have one answer.")
    ] = None,
    webhook: Annotated[
        str | None, typer.Option(help="URL that is told of the job's end; it needs WEBHOOK_SECRET at the workers.")
    ] = None,
    webhook_result: Annotated[
        bool, typer.Option("--webhook-result", help="The webhook brings the result along.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait for the results and print them.")] = False,
    timeout: Annotated[float | None, typer.Option(min=0, help="Wait for at most so many seconds.")] = None,
    format_name: Format = None,
    folder: Annotated[Path | None, typer.Option("-o", "--output", help="Write DIR/<job id>.<format>.")] = None,
    json_lines: Json = False,
) -> None:
    """Submit recordings; print a job id per line or, with --wait, the results.

    Several recordings, and what comes from stdin, are a batch: it waits behind all that is submitted one by one, so
    that it holds nobody up. Of a batch all are submitted or, where one cannot be, none.
    """
    if not wait and (timeout is not None or format_name or folder):
        raise InvalidJob("--timeout, --format and -o go with --wait")
    given = read_given(recordings)
    if not given:
        raise InvalidJob("there is no URL on standard input")
    for option, value in (("--task-id", task_id), ("--idempotency-key", idempotency_key)):
        if value and len(given) != 1:
            raise InvalidJob(f"{option} names one job: give one recording")
    options: dict[str, Any] = {
        "num_speakers": num_speakers,
        "min_speakers": min_speakers,
        "max_speakers": max_speakers,
        "provider": provider,
        "expected_audio_seconds": expected_audio_seconds,
        "deadline_seconds": deadline_seconds,
        "idempotency_key": idempotency_key,
        "webhook": webhook,
        "webhook_result": webhook_result,
        "headers": dict(_header(line) for line in _header_lines(header or [])),
    }
    urls = checked_urls(given, options, current_settings())
    output = Output.choose(format_name, json_lines=json_lines, jobs=len(urls), folder=folder) if wait else None
    if priority is None and (len(urls) > 1 or STDIN in recordings):
        priority = BATCH_PRIORITY
    ids: list[str] = []
    try:
        ids += _submit(urls, options, task_id, priority)
        if output is None:
            _print_jobs(ids, json_lines=json_lines)
        warn_if_paused()
        if output:
            with JobsDisplay(make_console(stderr=True)) as display:
                ended = wait_for(Records(current_settings()), ids, timeout, display)
            raise typer.Exit(DONE if output.deliver(ended) else FAILED)
    except KeyboardInterrupt:
        raise typer.Exit(_interrupted(ids)) from None


def _submit(urls: Sequence[str], options: dict[str, Any], task_id: str | None, priority: int | None) -> list[str]:
    from tasks.diarize import diarize  # noqa: PLC0415 - Celery takes half a second to import

    if len(urls) == 1:
        return [diarize.apply_async((urls[0],), options, task_id=task_id, priority=priority).id]
    recordings = [{"url": url, **options} for url in urls]
    return [
        job.id for job in diarize.submit_many(recordings, priority=BATCH_PRIORITY if priority is None else priority)
    ]


def _print_jobs(ids: Sequence[str], *, json_lines: bool) -> None:
    if not json_lines:
        print_line("\n".join(ids))
        return
    for record in filter(None, Records(current_settings()).get_many(ids)):
        print_line(json_line(as_json(record)))


def _lines(stream: Iterable[str]) -> list[str]:
    return [line.strip() for line in stream if line.strip()]


def _header_lines(given: Sequence[str]) -> Iterable[str]:
    for one in given:
        if not one.startswith("@"):
            yield one
            continue
        try:
            yield from _lines(Path(one[1:]).read_text().splitlines())
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidJob(f"--header {one} cannot be read: {type(error).__name__}") from None


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not name.strip():
        raise InvalidJob("--header takes 'Name: value'")
    return name.strip(), value.strip()


def _interrupted(ids: Sequence[str]) -> int:
    names = " ".join(ids)
    text = f"interrupted: the jobs go on; end them with: diarize-queue cancel {names}" if ids else "interrupted"
    make_console(stderr=True).print(printable(text), soft_wrap=True)
    return INTERRUPTED
