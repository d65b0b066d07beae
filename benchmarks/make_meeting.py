"""Mix single-speaker utterances into a meeting whose speaker turns are known exactly.

    python benchmarks/make_meeting.py meeting --minutes 10 --speakers 4 --seed 1      -> meeting.wav, meeting.rttm

Each speaker has a loudness, a room tail and a talkativeness of their own; some turns start before the previous one
ends. The reference marks where each clean utterance is within 30 dB of its loud parts, pauses under 0.25 s bridged.
The same arguments give the same meeting. A meeting longer than the pool uses utterances again, in another order.

The pool is LibriSpeech (CC BY 4.0, see recordings/NOTICE.md): ten readers. Needs numpy and soundfile.
"""

from __future__ import annotations

import argparse
import random
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

SAMPLE_RATE = 16_000
POOL = Path(__file__).resolve().parent.parent / "recordings" / "librispeech"
LOUDNESS = 0.05
"""RMS of an utterance's speech, before its speaker's gain."""
SINGLE_UTTERANCE_READERS = 251

Waveform = NDArray[np.float32]
Span = tuple[float, float]
Turn = tuple[float, float, str]


@dataclass
class Speaker:
    """One reader, sitting somewhere in the room."""

    name: str
    utterances: list[Path]
    gain: float
    talkativeness: float
    room: Waveform
    queue: list[Path] = field(default_factory=list)
    silent_since: float = -9.0

    def next_utterance(self, rng: random.Random) -> Path:
        """Each utterance once before any comes again."""
        if not self.queue:
            self.queue = rng.sample(self.utterances, len(self.utterances))
        return self.queue.pop()


def speech_spans(
    wave: Waveform, threshold_db: float = 30.0, bridge_seconds: float = 0.25, shortest_seconds: float = 0.1
) -> list[Span]:
    """Spans in seconds where 25-ms frames lie within `threshold_db` of the loud frames."""
    hop, window = 160, 400
    count = 1 + max(0, (len(wave) - window) // hop)
    power = np.array([np.mean(wave[i * hop : i * hop + window] ** 2) for i in range(count)])
    loudness = 10 * np.log10(power + 1e-12)
    active = loudness > np.percentile(loudness, 98) - threshold_db
    edges = np.flatnonzero(np.diff(np.concatenate([[False], active, [False]]).astype(int)))
    spans: list[Span] = []
    for first, last in zip(edges[::2], edges[1::2], strict=True):
        start, end = first * hop / SAMPLE_RATE, ((last - 1) * hop + window) / SAMPLE_RATE
        if spans and start - spans[-1][1] < bridge_seconds:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    return [(start, end) for start, end in spans if end - start >= shortest_seconds]


def cast(count: int, rng: random.Random, noise: np.random.Generator) -> list[Speaker]:
    """`count` of the pool's readers, drawn by chance."""
    pool: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(POOL.glob("*/*.flac")):
        pool[path.name.split("-")[0]].append(path)
    names = rng.sample(sorted(pool), len(pool))
    if count > len(names):
        raise SystemExit(f"the pool has {len(names)} speakers, not {count}")
    # Published figures are of meetings drawn when the pool had more readers, after these: draw as many numbers as then.
    rng.sample(range(SINGLE_UTTERANCE_READERS), SINGLE_UTTERANCE_READERS)

    def room() -> Waveform:
        length = int(rng.uniform(0.15, 0.4) * SAMPLE_RATE)
        tail = 0.06 * noise.standard_normal(length) * np.exp(-6.9 * np.arange(length) / length)
        tail[0], tail[1:64] = 1.0, 0.0
        return tail.astype(np.float32)

    return [
        Speaker(name, pool[name], 10 ** (rng.uniform(-6, 3) / 20), rng.uniform(0.4, 1.6), room())
        for name in names[:count]
    ]


@cache
def load(path: Path) -> tuple[Waveform, list[Span]] | None:
    """A clean utterance at a common loudness, with its speech spans; None where there is no speech."""
    wave, rate = soundfile.read(path, dtype="float32")
    if rate != SAMPLE_RATE:
        raise SystemExit(f"{path} has {rate} Hz, not {SAMPLE_RATE}")
    spans = speech_spans(wave)
    if not spans:
        return None
    speech = np.concatenate([wave[int(start * rate) : int(end * rate)] for start, end in spans])
    return wave / np.sqrt(np.mean(speech**2)) * LOUDNESS, spans


@dataclass
class Meeting:
    """A meeting as it grows."""

    waveform: Waveform
    turns: list[Turn] = field(default_factory=list)
    last_end: float = 0.0

    def hold_floor(self, speaker: Speaker, now: float, rng: random.Random) -> None:
        """Let `speaker` say one to three utterances from `now` on."""
        for _ in range(rng.choices([1, 2, 3], [0.6, 0.3, 0.1])[0]):
            utterance = load(speaker.next_utterance(rng))
            if utterance is None:
                continue
            wave, spans = utterance
            start = max(0.0, now - spans[0][0])
            wet = np.convolve(wave, speaker.room)[: len(wave) + SAMPLE_RATE // 5]
            first = int(start * SAMPLE_RATE)
            if first + len(wet) > len(self.waveform):
                break
            self.waveform[first : first + len(wet)] += wet * speaker.gain * 10 ** (rng.uniform(-1.5, 1.5) / 20)
            self.turns += [(start + begin, start + end, speaker.name) for begin, end in spans]
            speaker.silent_since = now = start + spans[-1][1]
            self.last_end = max(self.last_end, now)
            now += rng.uniform(0.15, 0.7)


def mix(minutes: float, count: int, seed: int, overlap: float, snr_db: float) -> tuple[Waveform, list[Turn]]:
    """Float32 samples at 16 kHz, and turns: (start, end, name) in seconds."""
    rng, noise = random.Random(seed), np.random.default_rng(seed)
    speakers = cast(count, rng, noise)
    total = int(minutes * 60 * SAMPLE_RATE)
    meeting = Meeting(np.zeros(total + 40 * SAMPLE_RATE, np.float32))
    previous, now = None, 0.5
    while now * SAMPLE_RATE < total - 2 * SAMPLE_RATE:
        weights = [s.talkativeness * (0.15 if s is previous else 1.0) for s in speakers]
        speaker = rng.choices(speakers, weights)[0]
        if previous is not None:
            interrupts = speaker is not previous and rng.random() < overlap
            now = meeting.last_end + (-rng.uniform(0.3, 1.8) if interrupts else 0.1 + rng.expovariate(1 / 0.6))
            now = max(now, speaker.silent_since + 0.1)  # nobody talks over themselves
        meeting.hold_floor(speaker, now, rng)
        previous = speaker
    waveform = meeting.waveform[:total]
    hiss = noise.standard_normal(total).astype(np.float32)
    waveform += hiss * LOUDNESS * 10 ** (-snr_db / 20)
    waveform *= min(1.0, 0.95 / np.abs(waveform).max())
    length = total / SAMPLE_RATE
    return waveform, sorted((start, min(end, length), name) for start, end, name in meeting.turns if start < length)


def main() -> None:
    """Write PREFIX.wav and PREFIX.rttm."""
    parser = argparse.ArgumentParser(description="Mix a meeting whose speaker turns are known exactly.")
    parser.add_argument("prefix", type=Path, help="writes PREFIX.wav and PREFIX.rttm")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--speakers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--overlap", type=float, default=0.12, help="share of turns that interrupt the one before")
    parser.add_argument("--snr", type=float, default=30, help="speech over hiss, in dB")
    args = parser.parse_args()
    waveform, turns = mix(args.minutes, args.speakers, args.seed, args.overlap, args.snr)
    soundfile.write(args.prefix.with_suffix(".wav"), waveform, SAMPLE_RATE, subtype="PCM_16")
    with args.prefix.with_suffix(".rttm").open("w") as rttm:
        for start, end, name in turns:
            rttm.write(f"SPEAKER {args.prefix.name} 1 {start:.3f} {end - start:.3f} <NA> <NA> {name} <NA> <NA>\n")
    names = {name for *_, name in turns}
    print(f"{args.prefix}: {args.minutes:g} min, {len(names)} speakers, {len(turns)} turns")


if __name__ == "__main__":
    main()
