"""The command `result`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diarization.errors import InvalidJob
from diarization.timeline import timeline_png, timeline_svg
from diarization.turns import Diarization
from tasks.commands.console import recording_name
from tasks.commands.output import Format, Json, Output, OutputError, find_jobs, id_of, print_line
from tasks.record import JobRecord, State

DONE, FAILED = 0, 1
DRAWN_AS = (".svg", ".png")


def result(
    job_id: Annotated[str, id_of([State.DONE])],
    format_name: Format = None,
    file: Annotated[Path | None, typer.Option("-o", "--output", help="Write into this file.")] = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Draw the timeline into FILE.svg or, with the extra `png`, FILE.png; print only what is asked for.",
        ),
    ] = None,
    json_lines: Json = False,
) -> None:
    """Print the result of a job that is done, or draw it; the reason where it failed."""
    if picture is not None and picture.suffix.lower() not in DRAWN_AS:
        raise InvalidJob(f"--picture draws {' or '.join(DRAWN_AS)} files: {picture.name} is neither")
    output = Output.choose(format_name, json_lines=json_lines, file=file)
    prints = picture is None or format_name is not None or file is not None or json_lines
    records, unknown = find_jobs([job_id])
    for record in records:
        if picture is not None and record.state is State.DONE:
            draw(record, picture)
    good = output.deliver(records) if prints else output.explain(records)
    raise typer.Exit(DONE if good and not unknown else FAILED)


def draw(record: JobRecord, file: Path) -> None:
    """Draw the timeline of a job that is done, and print the file's name.

    Raises:
        OutputError: The file cannot be written, or what draws it is not installed.
    """
    diarization, title = Diarization.from_json(record.result), recording_name(record.shown)
    try:
        if file.suffix.lower() == ".png":
            data = timeline_png(diarization, title=title)
        else:
            data = timeline_svg(diarization, title=title).encode()
        file.write_bytes(data)
    except ModuleNotFoundError as error:  # it says how that is mended
        raise OutputError(f"{error}; or draw an .svg, which needs nothing") from None
    except OSError as error:
        raise OutputError(f"{file} cannot be written: {error.strerror}") from None
    print_line(str(file))
