"""Many recordings: an RTTM file each, in a folder; run it again to go on where it stopped.

    python examples/batch.py /srv/meetings turns/            # a folder below the workers' DIARIZATION_RECORDINGS_DIR
    python examples/batch.py urls.txt turns/ --num-speakers 2    # a URL a line; `-` reads them from stdin

What has its file is left out, and what has been submitted before, by this script on whichever host, is not submitted
again: a recording's idempotency key says which file it is and what is asked of it. The jobs wait behind all single
ones, and go on without this script.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from diarization.errors import DiarizationError, QueueUnavailable, UrlNotAllowed
from diarization.formats import FORMATS
from diarization.recording import redact_url
from diarization.signed_url import unsigned_url
from diarization.turns import Diarization
from tasks.diarize import diarize
from tasks.record import JobRecord, State

SUFFIXES = frozenset(
    (".aac", ".flac", ".m4a", ".mkv", ".mov", ".mp3", ".mp4", ".ogg", ".opus", ".wav", ".webm", ".wma")
)
POLL_SECONDS = 1.0
LOOKED_AT_ONCE = 50
"""Jobs that are asked for at a time: they are done in about the order in which they were submitted."""
FORGOTTEN = {"code": "forgotten", "message": "the queue has no such job any more", "advice": "Run this again."}


@dataclass(frozen=True)
class Item:
    """One recording of the batch.

    Attributes:
        url: Where workers find it; it may be signed, and so is not shown.
        version: Changes when a file is replaced by another of its name.
        target: Where its turns go.
    """

    url: str
    version: str
    target: Path

    def arguments(self, num_speakers: int | None) -> dict[str, str | int | None]:
        """What is asked of the queue: the same for the same recording, however its URL is signed today."""
        name = "\n".join((unsigned_url(self.url), self.version, str(num_speakers)))
        return {
            "url": self.url,
            "num_speakers": num_speakers,
            "idempotency_key": f"batch-{sha256(name.encode()).hexdigest()}",
        }


def find_items(source: str, folder: Path) -> list[Item]:
    """The recordings below a folder, or the URLs in a file or on stdin."""
    if Path(source).is_dir():
        root = Path(source).resolve()
        files = sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        return [Item(path.as_uri(), _version(path), _target(folder, str(path.relative_to(root)))) for path in files]
    text = sys.stdin.read() if source == "-" else Path(source).read_text()
    items = []
    for number, line in enumerate(text.splitlines(), 1):
        if (url := line.strip()) and not url.startswith("#"):
            try:
                items.append(Item(url, "", _target(folder, _name(url))))
            except UrlNotAllowed as error:
                raise UrlNotAllowed(f"line {number}: {error.message}.") from None
    return items


def _version(path: Path) -> str:
    facts = path.stat()
    return f"{facts.st_size} {facts.st_mtime_ns}"


def _name(url: str) -> str:
    """A file name for a URL, the same each time, which shows nothing of its query."""
    bare = urlsplit(unsigned_url(url))
    name = re.sub(r"[^\w.-]+", "_", f"{bare.hostname or ''}{bare.path}").strip("_.")
    return f"{name}-{sha256(bare.query.encode()).hexdigest()[:8]}" if bare.query else name


def _target(folder: Path, name: str) -> Path:
    return folder / f"{name}.rttm"  # behind its own suffix: a.wav and a.mp3 are two


def submit(items: Sequence[Item], num_speakers: int | None, *, retry_failed: bool) -> dict[str, Item]:
    """The batch by job id; jobs of an earlier run are found again. `retry_failed` starts those anew that failed."""
    jobs = diarize.submit_many([item.arguments(num_speakers) for item in items])
    if retry_failed:
        records = [diarize.records.get(job.id) for job in jobs]
        failed = [record.id for record in records if record and record.state.ended and record.state is not State.DONE]
        for job_id in failed:
            diarize.delete(job_id)
        if failed:
            return submit(items, num_speakers, retry_failed=False)
    return {job.id: item for job, item in zip(jobs, items, strict=True)}


def write(record: JobRecord, target: Path) -> None:
    """Write a job's turns; the file is there whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    text = FORMATS["rttm"].write(Diarization.from_json(record.result), target.stem)
    part = target.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(target)


def collect(pending: dict[str, Item], progress: Progress) -> list[tuple[Item, Mapping[str, str]]]:
    """Write each job's turns when it is done; gives those that failed, with code, message and advice."""
    failures: list[tuple[Item, Mapping[str, str]]] = []
    bar = progress.add_task("waits", total=len(pending))
    while pending:
        try:
            records = {job_id: diarize.records.get(job_id) for job_id in list(pending)[:LOOKED_AT_ONCE]}
        except QueueUnavailable as error:
            progress.update(bar, description=f"{error.message}; still trying")
            time.sleep(POLL_SECONDS)
            continue
        for job_id, record in records.items():
            if record is not None and not record.state.ended:
                continue
            item = pending.pop(job_id)
            if record is not None and record.state is State.DONE:
                write(record, item.target)
            else:
                failures.append((item, (record and record.error) or FORGOTTEN))
            progress.advance(bar)
        running = sum(record is not None and record.state is State.RUNNING for record in records.values())
        progress.update(bar, description=f"{running} running, {len(failures)} failed")
        time.sleep(POLL_SECONDS)
    return failures


def main() -> int:
    """The command line; the exit code, which is 1 where a recording failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("source", help="a folder, a file with a URL a line, or `-` for stdin")
    parser.add_argument("folder", type=Path, help="where the RTTM files go")
    parser.add_argument("--num-speakers", type=int, help="in each of the recordings, where that is known")
    parser.add_argument("--retry-failed", action="store_true", help="start those anew that failed before")
    arguments = parser.parse_args()
    console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
    try:
        items = find_items(arguments.source, arguments.folder)
        if len({item.target for item in items}) < len(items):
            raise SystemExit("two of the recordings would be written to one file")
        left = [item for item in items if not item.target.exists()]
        console.print(f"{len(items)} recordings, {len(items) - len(left)} of them done before")
        jobs = submit(left, arguments.num_speakers, retry_failed=arguments.retry_failed)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console) as progress:
            failures = collect(jobs, progress)
    except (DiarizationError, OSError) as error:
        raise SystemExit(f"{error} {getattr(error, 'advice', '')}".strip()) from None
    except KeyboardInterrupt:
        raise SystemExit("the jobs go on; run this again to collect their turns") from None
    for item, error in failures:
        print(f"{redact_url(item.url)}\n  {error['code']}: {error['message']}\n  {error['advice']}")
    console.print(f"{len(left) - len(failures)} done, {len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
