"""A diarizer that needs no model and does what the recording's URL says: `DIARIZATION_DIARIZER=tests.standin:load`.

It opens no socket. The path of the URL is the script (what follows is ignored, and makes URLs distinct):

    /turns/60/3         a meeting of 60 s with 3 speakers; any other path: 30 s with 2; 0 speakers is silence
    /work/600/2         a meeting of 600 s with 2 speakers, at which it works for 2 s, and reports
    /sleep/5            works for 5 s, and reports every 50 ms
    /deaf/5             works for 5 s without a report, so that no cancel is heard
    /deaf-fail/5        the same, then ends with a transient error
    /gil/3              holds the GIL for 3 s, in one call
    /hang/1             works without a report for ever at the first attempt; without the number, at each
    /quiet/60/5         a recording of 60 s, at which it works for 5 s without a report
    /memory/3600/NAME   a recording that is decoded to 3600 s; with the name, it then works until that file stands in
                        STANDIN_DIR
    /wait/NAME          works, and reports, until the file NAME stands in STANDIN_DIR
    /fail/CODE/2        the first 2 attempts end with the error of that code (`transient` and `permanent` are short
                        for one each, `bug` is an error this project does not know); without a number, all do
    /leak               fails with an unknown error that says the whole URL and the headers
    /huge/200000        answers with so many turns of a second
    bundled:canary      a meeting of 10 s with 2 speakers; of 30 s where a file `sick` stands in STANDIN_DIR
    /none, /nan         answers with what is no diarization, or with one that is no JSON
    /exit/9/1           the process ends with that status at the first attempt; without the second number, at each
    /kill/1             the process kills itself with SIGKILL, likewise

Likewise the model: `unavailable` cannot be loaded, `bug` fails with an unknown error, `wait/NAME` loads once that
file stands in STANDIN_DIR (and fails where a file `refuse` does, too), `once` loads for the first process alone,
`lost/NAME` is on a GPU that fails under every job until that file stands in STANDIN_DIR, `moved` is on a GPU for the
first process and on the CPU for those after it; all others load at once.

Where STANDIN_DIR is set, every load, start and end is a line in its `journal`: `read_journal` gives them, and
attempts are counted by it.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import signal
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from diarization import canary
from diarization.diarizer import DiarizerOptions, Report
from diarization.errors import DeviceLost, DiarizationError, ModelUnavailable, from_code
from diarization.recording import Recording
from diarization.turns import Diarization, Provenance, Speaker, SpeakerHints, Turn, total_seconds

STEP_SECONDS = 0.05
SHORT_FOR = {"transient": "recording_fetch_failed", "permanent": "recording_undecodable"}


def load(options: DiarizerOptions) -> StandIn:
    """What DIARIZATION_DIARIZER names."""
    what, _, name = options.model.partition("/")
    if what == "unavailable":
        raise ModelUnavailable("the stand-in was told to be unavailable")
    if what == "bug":
        raise RuntimeError("the stand-in was told to fail while loading")
    if what == "wait":
        _wait_for(name)
        if (Path(os.environ["STANDIN_DIR"]) / "refuse").exists():
            raise ModelUnavailable("the stand-in was told to refuse")
    loads = _write_journal("load", options.model)
    if loads > 1 and what == "once":
        raise ModelUnavailable("the stand-in was told to load once")
    on_gpu = what == "lost" or (what == "moved" and loads == 1)
    return StandIn(options, Provenance(model="stand-in", device="cuda:0" if on_gpu else "cpu"))


@dataclass
class StandIn:
    """A `Diarizer`; see the module's text for what it does."""

    options: DiarizerOptions
    provenance: Provenance = field(default_factory=lambda: Provenance(model="stand-in", device="cpu"))

    def diarize(self, recording: Recording, hints: SpeakerHints, report: Report) -> Diarization:
        """Do as the URL's path says."""
        attempt = _write_journal("start", str(recording))
        try:
            result = self._play(recording, hints, report, attempt)
        except Exception as error:
            _write_journal(error.code if isinstance(error, DiarizationError) else "bug", str(recording))
            raise
        _write_journal("end", str(recording))
        return result

    def _play(  # noqa: C901 - a table
        self, recording: Recording, hints: SpeakerHints, report: Report, attempt: int
    ) -> Diarization:
        verb, *rest = urlsplit(recording.url).path.strip("/").split("/")
        seconds, speakers, worked_seconds = 30.0, 2, 0.0
        if recording.url == canary.URL:
            seconds = 30.0 if (Path(os.environ["STANDIN_DIR"]) / "sick").exists() else canary.AUDIO_SECONDS
        if verb in ("turns", "work", "quiet"):
            seconds = float(rest[0])
        if verb == "turns":
            speakers = int(rest[1])
        report("download", 1, 1)
        report("decode", int(seconds), int(seconds))
        what, _, name = self.options.model.partition("/")
        if what == "lost" and not (Path(os.environ["STANDIN_DIR"]) / name).exists():
            raise DeviceLost("the GPU failed: CUDA error: the stand-in was told to lose it")
        match verb:
            case "work":
                _work(worked_seconds := float(rest[1]), report)
            case "sleep":
                _work(float(rest[0]), report)
            case "deaf":
                time.sleep(float(rest[0]))
            case "deaf-fail":
                time.sleep(float(rest[0]))
                raise from_code(SHORT_FOR["transient"], f"attempt {attempt} was told to fail")
            case "hang" if _still(rest, attempt):
                while True:
                    time.sleep(1)
            case "quiet":
                time.sleep(float(rest[1]))
            case "memory":
                report("decode", int(rest[0]), int(rest[0]))
                if rest[1:]:
                    _wait_for(rest[1], report)
            case "gil":
                _hold_gil(float(rest[0]))
            case "wait":
                _wait_for(rest[0], report)
            case "fail" if _still(rest[1:], attempt):
                if rest[0] == "bug":
                    raise RuntimeError("the stand-in was told to fail in a way nobody knows")
                raise from_code(SHORT_FOR.get(rest[0], rest[0]), f"attempt {attempt} was told to fail")
            case "leak":
                raise RuntimeError(f"cannot fetch {recording.url} with {dict(recording.headers)}")
            case "huge":
                turns = (Turn(start=0, end=1, speaker="SPEAKER_00"),) * int(rest[0])
                return Diarization(segments=turns, exclusive_segments=turns, audio_seconds=1)
            case "none":
                return None  # type: ignore[return-value]
            case "nan":
                return Diarization.model_construct(segments=(), audio_seconds=float("nan"))
            case "exit" if _still(rest[1:], attempt):
                os._exit(int(rest[0]))
            case "kill" if _still(rest, attempt):
                os.kill(os.getpid(), signal.SIGKILL)
        for stage in ("segmentation", "embedding", "clustering"):
            report(stage, 1, 1)
        return self._meeting(recording, seconds, speakers, hints, worked_seconds)

    def _meeting(
        self, recording: Recording, seconds: float, speakers: int, hints: SpeakerHints, worked_seconds: float
    ) -> Diarization:
        at_least = max(speakers, hints.min_speakers or 0)
        wanted = hints.num_speakers or min(at_least, hints.max_speakers or at_least)
        turns = _turns(seconds, wanted if speakers else 0, seed=zlib.crc32(str(recording).encode()))
        found = total_seconds(turns)
        asked = hints.num_speakers or hints.min_speakers or 0
        warnings = (f"asked for {asked} speakers, found {len(found)}",) if len(found) < asked else ()
        if self.options.embeddings:
            found = tuple(Speaker(**{**speaker.model_dump(), "embedding": (0.6, 0.8)}) for speaker in found)
        return Diarization(
            segments=turns,
            exclusive_segments=_exclusive(turns),
            speakers=found,
            audio_seconds=seconds,
            warnings=warnings,
            provenance=self.provenance.model_copy(update={"stage_seconds": {"segmentation": worked_seconds}}),
        )


def read_journal(directory: Path) -> list[dict[str, Any]]:
    """What every process wrote, in order: `event` (`load`, `start`, `end` or an error's code), `what` (the model, or
    the recording's URL as it may be shown), `pid`, and `at`, seconds on the machine's monotonic clock."""
    path = directory / "journal"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _write_journal(event: str, what: str) -> int:
    """Add a line; how often `what` has had this event, this time included (1 where there is no journal)."""
    if not (folder := os.environ.get("STANDIN_DIR")):
        return 1
    line = json.dumps({"event": event, "what": what, "pid": os.getpid(), "at": time.monotonic()}) + "\n"
    descriptor = os.open(Path(folder) / "journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line.encode())  # one write of a short line to the end of a file is never torn
    finally:
        os.close(descriptor)
    return sum(entry["event"] == event and entry["what"] == what for entry in read_journal(Path(folder)))


def _still(count: list[str], attempt: int) -> bool:
    return not (count and count[0].isdigit()) or attempt <= int(count[0])


def _work(seconds: float, report: Report) -> None:
    steps = max(1, round(seconds / STEP_SECONDS))
    for step in range(steps):
        time.sleep(seconds / steps)
        report("segmentation", step + 1, steps)


def _wait_for(name: str, report: Report | None = None) -> None:
    while not (Path(os.environ["STANDIN_DIR"]) / name).exists():
        if report is not None:
            report("segmentation", 0, 0)
        time.sleep(STEP_SECONDS)


def _hold_gil(seconds: float) -> None:
    """One C call that does not let go of the GIL, as scipy's `linkage` does on a long recording."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:  # a signal ends the call early
        ctypes.PyDLL(None).poll(None, 0, int(left * 1000) + 1)


def _turns(seconds: float, speakers: int, seed: int) -> tuple[Turn, ...]:
    """A made-up meeting, the same for the same arguments: nobody talks over themselves, some over others."""
    rng = random.Random(seed)
    turns: list[Turn] = []
    start, last = 0.0, -1
    while speakers and start < seconds:
        speaker = len(turns) if len(turns) < speakers else rng.choice([s for s in range(speakers) if s != last] or [0])
        end = min(seconds, start + rng.uniform(1.0, min(6.0, max(1.5, seconds / speakers))))
        turns.append(Turn(start=round(start, 3), end=round(end, 3), speaker=f"SPEAKER_{speaker:02d}"))
        own_end = {turn.speaker: turn.end for turn in turns}
        start, last = end + rng.uniform(-0.4 if speakers > 1 else 0.1, 0.8), speaker
        start = max(start, turns[-1].start + 0.5, *(own_end.values() if speakers == 1 else [0.0]))
    return tuple(turn for turn in turns if turn.end > turn.start)


def _exclusive(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """The same turns, each from where the ones before it have ended."""
    result: list[Turn] = []
    for turn in turns:
        start = max(turn.start, result[-1].end if result else 0.0)
        if start < turn.end:
            result.append(turn.model_copy(update={"start": start}))
    return tuple(result)
