"""Ours exact, ours fast and stock pyannote on the same waveforms in one run: turns, DER, seconds, memory.

    python -m benchmarks.bench [--minutes 3 5] [--as-shipped] [--device auto] [--only-meetings]

The recordings are the sample, three AMI clips and mixed meetings of the lengths given. Stock runs with our batch sizes,
which give the same turns as its own in half the time on a CPU; `--as-shipped` runs it once more as it is. Exits with 1
where a turn of `exact` is not stock's, or where `fast` costs more than 0.3 points of DER over the set. DER: collar 0,
overlap scored, weighted by speech.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import soundfile
from rich.console import Console

from benchmarks.make_meeting import SAMPLE_RATE, mix
from benchmarks.outcome import Points, plot, write
from diarization.benchmark import WIDTH, Row, compare, hardware, table
from diarization.scoring import Span, der, read_rttm, read_uem
from diarization.turns import Turn

RECORDINGS = Path(__file__).resolve().parent.parent / "recordings"
SPEAKERS, SEED = {3: 3, 5: 4, 10: 6}, {3: 21, 5: 1, 10: 2}
DER_LOST = 0.003
"""What `fast` may cost over the set."""

Recording = tuple[Path, tuple[Turn, ...], tuple[Span, ...] | None]


def recordings(minutes: list[int], folder: Path, only_meetings: bool) -> Iterator[Recording]:
    """File, reference, and what of it is scored."""
    clips = [] if only_meetings else [RECORDINGS / "sample" / "sample.wav", *sorted((RECORDINGS / "ami").glob("*.wav"))]
    for path in clips:
        uem = path.with_suffix(".uem")
        yield path, read_rttm(path.with_suffix(".rttm")), read_uem(uem) if uem.exists() else None
    for length in minutes:
        samples, turns = mix(length, SPEAKERS.get(length, 4), SEED.get(length, 1), overlap=0.12, snr_db=30)
        path = folder / f"meeting-{length}-min.wav"
        soundfile.write(path, samples, SAMPLE_RATE, subtype="FLOAT")
        yield path, tuple(Turn(start=a, end=b, speaker=name) for a, b, name in turns), None


def pooled(scored: list[tuple[Recording, Row]]) -> dict[str, float]:
    """DER over all recordings, by contender."""
    wrong, total = defaultdict(float), defaultdict(float)
    for (_, reference, uem), row in scored:
        score = der(reference, row.run.result.segments, uem=uem)
        wrong[row.run.contender] += score.der * score.total
        total[row.run.contender] += score.total
    return {contender: wrong[contender] / total[contender] for contender in total}


def costs(rows: list[Row]) -> dict[str, Points]:
    """(minutes of audio, seconds) by contender."""
    series = defaultdict(list)
    for row in rows:
        series[row.run.contender].append((row.run.result.audio_seconds / 60, row.run.seconds))
    return series


def main() -> int:
    """Run all, print a table, store the figures; the verdict comes last."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=int, nargs="*", default=[3, 5], help="lengths of meetings; default: 3 5")
    parser.add_argument("--as-shipped", action="store_true", help="stock with its own batch sizes, too")
    parser.add_argument("--only-meetings", action="store_true", help="leave out the sample and the AMI clips")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda or cuda:N; default: cpu")
    given = parser.parse_args()
    contenders = ["exact", "fast", "stock", *(["stock as shipped"] if given.as_shipped else [])]
    scored: list[tuple[Recording, Row]] = []
    with tempfile.TemporaryDirectory() as folder:
        for recording in recordings(given.minutes, Path(folder), given.only_meetings):
            path, reference, uem = recording
            for row in compare(path, contenders, given.device, reference, uem):
                sys.stderr.write(f"{row.recording}: {row.run.contender}, {row.run.seconds:.1f} s\n")
                scored.append((recording, row))
    rows, total = [row for _, row in scored], pooled(scored)
    differ = [row.recording for row in rows if row.run.contender == "exact" and not row.same_turns]
    lost = total["fast"] - total["stock"]
    path = write("bench", {"rows": [row.to_json() for row in rows], "pooled_der": total, "fast_der_lost": lost})
    plot("bench", costs(rows), "minutes of audio", "seconds")
    console, machine = Console(width=WIDTH), hardware()
    console.print(table(rows))
    console.print("DER over the set: " + ", ".join(f"{name} {value:.2%}" for name, value in total.items()))
    processor = machine["gpu"] or machine["cpu"]
    console.print(f"{machine['date']}, {processor}, {machine['threads']} threads; figures: {path.name}")
    ok = not differ and lost <= DER_LOST
    verdict = f"exact differs on {', '.join(differ)}" if differ else "exact: all turns are stock's"
    console.print(f"bench: {'ok' if ok else 'FAILED'}; {verdict}; fast: {100 * lost:+.2f} points of DER")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
