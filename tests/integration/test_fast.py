"""Precision `fast`: what it is equal to, what it is close to, and what it says of itself."""

from __future__ import annotations

from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pyannote.core import SlidingWindow, SlidingWindowFeature

from diarization.batches import FittingBatch
from diarization.diarizer import BUNDLED_MODEL, DiarizerOptions
from diarization.fused_trunk import FusedTrunk
from diarization.half_precision import best_precision
from diarization.pipeline import load
from diarization.scoring import der
from diarization.turns import SpeakerHints
from diarization.whole_trunk import STRIDE, WholeTrunk
from tests.pyannote_model import SAMPLE_RATE, pyannote, sample, untouched

pytestmark = pytest.mark.model

NO_HINTS = SpeakerHints()
CHUNKS = SlidingWindow(start=0.0, duration=10.0, step=1.0)


def ignore(stage: str, done: int, total: int) -> None:
    """A report nobody reads."""


@cache
def fast() -> Any:
    return load(DiarizerOptions(model=str(BUNDLED_MODEL), device="cpu", precision="fast"))


def test_fast_says_how_it_was_done_and_stays_close_to_stock() -> None:
    given = fast().diarize_waveform(sample(), NO_HINTS, ignore)
    exact = pyannote().diarize_waveform(sample(), NO_HINTS, ignore)

    assert given.provenance.precision == "fast"
    assert given.provenance.trunk in ("whole recording, float32", "whole recording, bfloat16")
    assert exact.provenance.precision == "exact"
    assert exact.provenance.trunk == "per chunk, float32"
    assert der(exact.segments, given.segments).der < 0.02


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_changes_no_turn(half: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU can do float16, too, in which a GPU runs the trunk."""
    turns = []
    for precision in (torch.float32, half):
        monkeypatch.setattr("diarization.whole_trunk.best_precision", lambda trunk, device, kind=precision: kind)
        diarizer = load(DiarizerOptions(model=str(BUNDLED_MODEL), device="cpu", precision="fast"))
        assert diarizer.provenance.trunk == f"whole recording, {str(precision).removeprefix('torch.')}"
        turns.append(diarizer.diarize_waveform(sample(), NO_HINTS, ignore).segments)

    assert turns[0] == turns[1]


def test_its_arithmetic_is_chosen_while_no_other_process_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A half that is found to be no faster beside another's job would be given up for the life of this process."""
    lock, free = tmp_path / "device", []

    def choose(trunk: FusedTrunk, device: torch.device) -> torch.dtype:
        with lock.open("rb") as another, suppress(BlockingIOError):
            flock(another, LOCK_EX | LOCK_NB)
            free.append(True)
        return torch.float32

    monkeypatch.setattr("diarization.whole_trunk.best_precision", choose)
    load(DiarizerOptions(model=str(BUNDLED_MODEL), device="cpu", precision="fast", device_lock=lock))
    assert not free
    choose(FusedTrunk(untouched()._embedding.model_.resnet), torch.device("cpu"))
    assert free, "afterwards it is given back"


def test_of_one_chunk_fast_and_exact_embeddings_are_the_same() -> None:
    """Its centring and its ends are stock's where the recording is no longer than a chunk."""
    given, expected = (embed(kind, sample(7, 17), FittingBatch(250)) for kind in ("fast", "exact"))

    assert given == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("evenly", [False, True])
def test_blocks_change_no_embedding(evenly: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = embed("fast", sample(5, 25), FittingBatch(100_000))
    lengths: list[int] = []
    run = FusedTrunk.forward

    def note(trunk: FusedTrunk, bank: torch.Tensor) -> torch.Tensor:
        lengths.append(bank.shape[1])
        return run(trunk, bank)

    monkeypatch.setattr(FusedTrunk, "forward", note)
    for size in (250, 40, 7):
        lengths.clear()
        assert embed("fast", sample(5, 25), FittingBatch(size), evenly) == pytest.approx(whole, abs=1e-5)
        most = 8 * size + 2 * 112
        assert max(lengths) < most + 8
        if evenly and size < 250:
            assert min(lengths) >= most


@pytest.mark.parametrize(
    ("seconds", "value", "precision"),
    [(0.7, 1.0, torch.bfloat16), (0.8, 1.0, torch.float32), (0.1, np.nan, torch.float32)],
)
def test_half_precision_is_for_where_it_is_faster_and_gives_numbers(
    seconds: float, value: float, precision: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = {torch.float32: (1.0, torch.ones(2)), torch.bfloat16: (seconds, torch.tensor([1.0, value]))}
    monkeypatch.setattr("diarization.half_precision.timed", lambda trunk, bank: runs[bank.dtype])

    assert best_precision(FusedTrunk(untouched()._embedding.model_.resnet), torch.device("cpu")) == precision


def embed(kind: str, samples: NDArray[np.float32], blocks: FittingBatch, evenly: bool = False) -> NDArray[np.float32]:
    """Embeddings of a recording in which each of three speakers talks a third of each chunk."""
    pipeline = untouched()
    chunks = max(1, len(samples) // SAMPLE_RATE - 9)
    talking = np.zeros((chunks, 589, 3), np.uint8)
    for speaker in range(3):
        talking[:, speaker * 196 : speaker * 196 + 196, speaker] = 1
    file = {"waveform": torch.from_numpy(samples)[None], "sample_rate": SAMPLE_RATE}
    segmentations = SlidingWindowFeature(talking, CHUNKS)
    if kind == "exact":
        return pipeline.get_embeddings(file, segmentations, exclude_overlap=True)
    trunk = WholeTrunk(pipeline, FittingBatch(4), blocks, torch.float32)
    trunk.evenly = evenly
    return trunk.get_embeddings(file, segmentations, exclude_overlap=True)


def test_stretches_without_speech_cost_no_trunk() -> None:
    seen = []
    samples, talking = np.zeros(60 * SAMPLE_RATE, np.float32), np.zeros((51, 589, 3), np.uint8)
    talking[50, :, 0] = 1
    trunk = WholeTrunk(untouched(), FittingBatch(4), FittingBatch(100), torch.float32)
    trunk._trunk.register_forward_pre_hook(lambda network, given: seen.append(given[0].shape[1]))

    trunk.get_embeddings(
        {"waveform": torch.from_numpy(samples)[None], "sample_rate": SAMPLE_RATE}, SlidingWindowFeature(talking, CHUNKS)
    )

    assert sum(seen) < 20 * 100 + 4 * 224 + STRIDE * 100


def test_fast_is_exact_where_it_does_not_know_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diarization.whole_trunk.WeSpeakerResNet34", type("AnotherNetwork", (), {}))

    diarizer = load(DiarizerOptions(model=str(BUNDLED_MODEL), device="cpu", precision="fast"))
    given = diarizer.diarize_waveform(sample(7, 8), NO_HINTS, ignore)

    assert given.provenance.precision == "exact"
    assert given.provenance.trunk == "per chunk, float32"
    assert given.warnings == ("precision 'fast' does not know this model's speaker network; the answer is exact",)
