"""The command `bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diarization.errors import ModelUnavailable


def bench(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Recordings on this machine.", exists=True)],
    reference: Annotated[Path | None, typer.Option(help="Who spoke when, as RTTM: adds the DER.", exists=True)] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    json_lines: Annotated[bool, typer.Option("--json", help="For programs: one JSON object per run.")] = False,
) -> None:
    """Diarize recordings here, by exact, fast and stock pyannote: seconds, memory, turns."""
    try:
        from diarization import benchmark  # noqa: PLC0415 - torch, which a producer does without
    except ModuleNotFoundError as error:
        raise ModelUnavailable(
            f"{error}: install the model's libraries: pip install 'diarize-queue[worker]'"
        ) from error
    raise typer.Exit(benchmark.bench(files, reference, device, json_lines=json_lines))
