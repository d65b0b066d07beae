"""Each exact speed-up against stock pyannote's own function, on what the networks give and on what they may give."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from pyannote.core import SlidingWindow, SlidingWindowFeature
from scipy.cluster.hierarchy import fcluster
from scipy.cluster.hierarchy import linkage as scipy_linkage
from scipy.spatial.distance import cdist as scipy_cdist
from scipy.spatial.distance import pdist
from torch.nn.functional import conv2d

from diarization import filter_bank
from diarization import linkage as linkage_module
from diarization import vbx as vbx_module
from diarization.batches import FittingBatch
from diarization.chunkwise import CONVOLVED, convolve_chunkwise
from diarization.clustering import bound_clustering, cdist
from diarization.cudnn_trunk import CudnnTrunk, faster
from diarization.device import send_overlapping
from diarization.diarizer import BUNDLED_MODEL
from diarization.errors import Cancelled
from diarization.filter_bank import FilterBank
from diarization.fused_trunk import FusedTrunk
from diarization.linkage import linkage
from diarization.reconstruction import reconstruct, speaker_count, to_annotation
from diarization.recurrent import recur_in_threads
from diarization.shared_trunk import SharedTrunk
from diarization.stock import stock_diarization
from diarization.turns import SpeakerHints, Turn
from diarization.upstream import AgglomerativeClustering, SpeakerDiarization, cluster_vbx
from diarization.vbx import cluster_vbx as streamed_vbx
from tests.pyannote_model import SAMPLE_RATE, pyannote, sample, untouched

pytestmark = pytest.mark.model

NO_HINTS = SpeakerHints()
CHUNKS = SlidingWindow(start=0.0, duration=10.0, step=1.0)
FRAMES = SlidingWindow(start=0.0, duration=0.0619375, step=0.016875)  # of the bundled segmentation


def ignore(stage: str, done: int, total: int) -> None:
    """A report nobody reads."""


def voices(count: int, speakers: int = 6, seed: int = 0) -> NDArray[np.float64]:
    """Embeddings as overlapping chunks give them: each close to the one before, of length 1; some are far off."""
    rng = np.random.default_rng(seed)
    spread = np.exp(-np.arange(256) / 70)
    centres = rng.standard_normal((speakers, 256)) * spread
    drift, rows = np.zeros(256), np.empty((count, 256))
    for row in range(count):
        drift = 0.8 * drift + 0.6 * rng.standard_normal(256) * spread
        rows[row] = centres[(row // 20 * 7) % speakers] + drift * (1.5 if rng.random() < 0.05 else 0.5)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


# Linkage


def our_linkage(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ours, however few points there are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linkage_module, "MATRIX_POINTS", 0)
        return linkage(points.copy())


@pytest.mark.parametrize("count", [2, 3, 50, 1500])
def test_linkage_makes_scipys_merges(count: int) -> None:
    points = voices(count, seed=count)

    ours, scipys = our_linkage(points), scipy_linkage(points, method="centroid", metric="euclidean")

    assert np.array_equal(ours[:, [0, 1, 3]], scipys[:, [0, 1, 3]])
    assert ours[:, 2] == pytest.approx(scipys[:, 2], abs=1e-12)


@pytest.mark.parametrize("dimension", [1, 2, 29, 30, 31, 32, 256])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_points_of_unequal_lengths_get_scipys_merges(scale: float, dimension: int) -> None:
    rng = np.random.default_rng(dimension)
    points = scale * rng.standard_normal((300, dimension)) * rng.exponential(size=(300, 1))

    ours, scipys = our_linkage(points), scipy_linkage(points, method="centroid", metric="euclidean")

    assert (np.diff(scipys[:, 2]) < 0).any() == (dimension > 1)  # a merge may bring others nearer than it was
    assert np.array_equal(ours[:, [0, 1, 3]], scipys[:, [0, 1, 3]])
    assert ours[:, 2] == pytest.approx(scipys[:, 2], rel=1e-9)


@given(arrays(np.float64, st.tuples(st.integers(2, 30), st.integers(1, 40)), elements=st.integers(-2, 2)))
def test_of_pairs_equally_far_apart_one_is_merged(points: NDArray[np.float64]) -> None:
    check_merges(points, our_linkage(points), within=1e-6)


def test_points_that_nearly_coincide_are_told_apart() -> None:
    points = np.tile(voices(4), (40, 1)) + 1e-9 * np.random.default_rng(0).standard_normal((160, 256))

    check_merges(points, our_linkage(points), within=1e-12)


def check_merges(points: NDArray[np.float64], merges: NDArray[np.float64], within: float) -> None:
    """Each is of two clusters whose centroids are as near to each other as any."""
    members = {label: [label] for label in range(len(points))}
    for step, (first, second, height, size) in enumerate(merges):
        centroids = {label: points[rows].mean(axis=0) for label, rows in members.items()}
        distance = np.linalg.norm(centroids[first] - centroids[second])
        assert height == pytest.approx(distance, abs=within)
        assert height == pytest.approx(pdist(np.array(list(centroids.values()))).min(), abs=within)
        members[len(points) + step] = members.pop(int(first)) + members.pop(int(second))
        assert first < second
        assert size == len(members[len(points) + step])
    assert len(members) == 1


@pytest.mark.parametrize("more", [0, 1])
def test_up_to_a_number_of_points_scipy_is_called(more: int) -> None:
    points = voices(linkage_module.MATRIX_POINTS + more)

    ours, scipys = linkage(points), scipy_linkage(points, method="centroid", metric="euclidean")

    assert np.array_equal(ours, scipys) is (more == 0)
    assert np.array_equal(ours[:, [0, 1, 3]], scipys[:, [0, 1, 3]])


def test_an_hour_of_embeddings_falls_into_scipys_clusters() -> None:
    hour = np.tile(voices(450), (10, 1)) + 1e-3 * np.random.default_rng(1).standard_normal((4500, 256))
    assert len(hour) > linkage_module.MATRIX_POINTS

    ours, scipys = linkage(hour), scipy_linkage(hour, method="centroid", metric="euclidean")

    assert np.array_equal(fcluster(ours, 0.6, "distance"), fcluster(scipys, 0.6, "distance"))
    assert np.array_equal(ours[:, [0, 1, 3]], scipys[:, [0, 1, 3]])


def test_points_that_coincide_fall_into_scipys_clusters_under_whatever_number() -> None:
    points = np.tile(voices(100), (4, 1))

    ours, scipys = (
        fcluster(merges, 0.6, "distance") for merges in (our_linkage(points), scipy_linkage(points, "centroid"))
    )

    assert len(set(zip(ours, scipys, strict=True))) == len(set(ours)) == len(set(scipys)) > 1


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_what_is_no_number_is_refused_as_by_scipy(number: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        our_linkage(np.full((3, 4), number))


def test_what_is_too_large_for_float32_goes_to_scipy() -> None:
    points = 1e18 * voices(50)

    assert np.array_equal(our_linkage(points), scipy_linkage(points, method="centroid"))


# VBx, distances, and stock's clustering with them


@pytest.mark.parametrize("smoothing", [7.0, -1.0])
def test_vbx_in_blocks_leaves_the_speakers_that_stock_leaves(smoothing: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vbx_module, "_BLOCK", 5_000)
    clustering, points = untouched().clustering, voices(900)
    _, initial = np.unique(fcluster(scipy_linkage(points, method="centroid"), 0.6, "distance"), return_inverse=True)
    features, between = clustering.plda(points), clustering.plda.phi

    stock, stock_shares = cluster_vbx(initial, features, between, 0.07, 0.8, 20, smoothing)
    ours, shares = streamed_vbx(initial, features, between, 0.07, 0.8, 20, smoothing)

    left = stock_shares > 1e-7
    assert 1 < left.sum() < len(left)
    assert shares == pytest.approx(stock_shares[left], abs=1e-9)
    assert ours == pytest.approx(stock[:, left], abs=1e-9)


def test_distances_in_blocks_are_scipys_bit_for_bit() -> None:
    rows, columns = voices(9000).astype(np.float32), voices(5, seed=2)

    assert np.array_equal(cdist(rows, columns, "cosine"), scipy_cdist(rows, columns, "cosine"))


def recording(chunks: int, speakers: int) -> tuple[NDArray[np.float32], SlidingWindowFeature]:
    """Embeddings and segmentations of as many chunks."""
    rng = np.random.default_rng(chunks)
    embeddings = voices(chunks * 3, speakers, seed=1).reshape(chunks, 3, 256).astype(np.float32)
    talking = np.repeat(rng.random((chunks, 31, 3)) < 0.35, 19, axis=1)[:, :589]
    return embeddings, SlidingWindowFeature(talking.astype(np.uint8), CHUNKS)


@pytest.mark.parametrize("hints", [{}, {"num_clusters": 3}, {"min_clusters": 9}, {"max_clusters": 2}])
@pytest.mark.parametrize("speakers", [1, 6, 20])
@pytest.mark.parametrize("kind", ["VBx", "agglomerative"])
def test_stocks_clustering_gives_the_same_with_our_parts(
    kind: str, speakers: int, hints: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linkage_module, "MATRIX_POINTS", 0)
    stock = untouched().clustering if kind == "VBx" else agglomerative()
    ours = SimpleNamespace(clustering=copy.copy(stock))
    bound_clustering(ours)  # type: ignore[arg-type]
    embeddings, segmentations = recording(chunks=400, speakers=speakers)
    bounds = {"min_clusters": 1, "max_clusters": np.inf, "num_clusters": None} | hints

    expected = stock(embeddings=embeddings.copy(), segmentations=segmentations, **bounds)
    given = ours.clustering(embeddings=embeddings.copy(), segmentations=segmentations, **bounds)

    assert type(stock).__name__ in type(ours.clustering).__name__ != type(stock).__name__
    assert np.array_equal(given[0], expected[0])
    assert given[2] == pytest.approx(expected[2], abs=1e-6)


@pytest.mark.parametrize("kind", ["VBx", "agglomerative"])
def test_clustering_tells_how_far_it_is_and_ends_where_its_listener_raises(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linkage_module, "MATRIX_POINTS", 0)
    monkeypatch.setattr(linkage_module, "_HEARD_EVERY", 8)
    ours = SimpleNamespace(clustering=untouched().clustering if kind == "VBx" else agglomerative())
    ours.clustering = copy.copy(ours.clustering)
    progress = bound_clustering(ours)  # type: ignore[arg-type]
    embeddings, segmentations = recording(chunks=400, speakers=6)
    told: list[int] = []

    def cluster() -> None:
        ours.clustering(embeddings=embeddings.copy(), segmentations=segmentations, min_clusters=1, max_clusters=np.inf)

    def hear(done: int, total: int) -> None:
        assert total == 100
        told.append(done)

    with progress.told_to(hear):
        cluster()
    assert told == sorted(told)
    assert len(set(told)) > 3
    assert (told[-1] >= 70) is (kind == "VBx")

    def cancel(done: int, total: int) -> None:
        if done >= 30:
            raise Cancelled("the job was cancelled while it ran")

    with progress.told_to(cancel), pytest.raises(Cancelled):
        cluster()
    cluster()  # nobody listens any longer, and it works as before


def agglomerative() -> AgglomerativeClustering:
    """As in speaker-diarization-3.1."""
    clustering = AgglomerativeClustering(metric="cosine")
    return clustering.instantiate({"method": "centroid", "min_cluster_size": 12, "threshold": 0.7045654963945799})


# What comes after the networks


@pytest.mark.parametrize(("chunks", "speakers"), [(1, 1), (2, 3), (60, 4), (60, 40)])
def test_counts_frames_and_turns_are_stocks(chunks: int, speakers: int) -> None:
    _, small = recording(chunks, 6)
    small.data[:: max(2, chunks // 5)] = 0
    floats = SlidingWindowFeature(small.data.astype(np.float32), CHUNKS)
    rng = np.random.default_rng(speakers)
    clusters = rng.integers(0, speakers, (chunks, 3)).astype(np.int8)
    clusters[small.data.sum(axis=1) == 0] = -2
    clusters[0, 0] = speakers - 1

    count, stock_count = (
        speaker_count(small, FRAMES, warm_up=(0.0, 0.0)),
        SpeakerDiarization.speaker_count(floats, FRAMES, warm_up=(0.0, 0.0)),
    )
    discrete, stock_discrete = (
        reconstruct(small, clusters, count),
        SpeakerDiarization.reconstruct(untouched(), floats, clusters, stock_count),
    )

    assert np.array_equal(count.data, stock_count.data)
    assert count.data.dtype == stock_count.data.dtype
    assert discrete.data.dtype == np.uint8
    assert np.array_equal(discrete.data, stock_discrete.data)
    assert discrete.sliding_window.__dict__ == stock_discrete.sliding_window.__dict__
    for off in (0.0, 0.3):
        for on in (0.0, 0.2):
            ours = to_annotation(discrete, min_duration_on=on, min_duration_off=off)
            stocks = SpeakerDiarization.to_annotation(stock_discrete, min_duration_on=on, min_duration_off=off)
            assert list(ours.itertracks(yield_label=True)) == list(stocks.itertracks(yield_label=True))


def test_the_bundled_models_segmentations_take_a_byte_a_frame_and_are_those_of_stock() -> None:
    file = {"waveform": torch.from_numpy(sample(5, 18))[None], "sample_rate": SAMPLE_RATE}
    ours = pyannote()._pipeline.get_segmentations(file)
    stocks = untouched().get_segmentations(file)

    assert ours.data.dtype == np.uint8
    assert ours.data.strides[1] == 1  # the frames of a speaker are side by side
    assert np.array_equal(ours.data, stocks.data)


# Filter bank


def bank_of(samples: NDArray[np.float32], window: SlidingWindow) -> FilterBank:
    chunks = max(1, 1 + round((len(samples) / SAMPLE_RATE - window.duration) / window.step))
    return FilterBank(untouched(), torch.from_numpy(samples)[None], window, chunks)


@pytest.mark.parametrize("block", [1, 1500, 100_000])
def test_a_chunks_filter_bank_is_stocks(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a chunk that the recording does not fill, and after a gap."""
    monkeypatch.setitem(filter_bank._BLOCK, "cpu", block)
    samples, model = sample(3, 25.5), untouched()._embedding.model_
    bank = bank_of(np.append(samples, np.zeros(SAMPLE_RATE // 2, np.float32)), CHUNKS)
    assert bank.is_shared
    filled = np.append(samples, np.zeros(SAMPLE_RATE, np.float32))

    for chunks in ([0, 1, 2], [5], [9, 13]):
        crops = [filled[chunk * SAMPLE_RATE :][: 10 * SAMPLE_RATE] for chunk in chunks]
        stocks = model.compute_fbank(torch.from_numpy(np.stack(crops))[:, None])
        assert bank.of(np.array(chunks)).numpy() == pytest.approx(stocks.numpy(), abs=1e-4)


def test_frames_that_reach_beyond_their_chunk_are_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kaldi mirrors the samples at both ends where it does not snip its frames there."""
    assert bank_of(sample(), CHUNKS).is_shared
    monkeypatch.setitem(untouched()._embedding.model_.hparams, "snip_edges", False)
    assert not bank_of(sample(), CHUNKS).is_shared


def test_chunks_that_begin_between_two_frames_share_no_filter_bank() -> None:
    steps = {1.0: True, 0.5: True, 0.333: False}
    windows = {step: SlidingWindow(start=0.0, duration=10.0, step=step) for step in steps}
    assert {step: bank_of(sample(), window).is_shared for step, window in windows.items()} == steps
    talking = np.ones((3, 589, 3), np.uint8)
    file = {"waveform": torch.from_numpy(sample(5, 17))[None], "sample_rate": SAMPLE_RATE}
    segmentations = SlidingWindowFeature(talking, windows[0.333])

    trunk = FusedTrunk(untouched()._embedding.model_.resnet)
    ours = SharedTrunk(untouched(), FittingBatch(4), trunk).get_embeddings(file, segmentations)

    assert ours == pytest.approx(untouched().get_embeddings(file, segmentations), abs=1e-4)


def test_overlapping_chunks_are_sent_as_the_stretch_that_they_are_views_of(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []
    monkeypatch.setattr("diarization.device.send", lambda values, device: sent.append(values.numel()) or values.clone())
    views = torch.from_numpy(sample())[32_000:].unfold(0, 160_000, 16_000)[2:9, None]

    for chunks in (views, views[:1], views.contiguous()):
        assert torch.equal(send_overlapping(chunks, torch.device("cpu")), chunks)

    assert sent == [256_000, 160_000, 7 * 160_000]


@pytest.fixture
def threads() -> Iterator[int]:
    """Torch has three of them."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield 3
    torch.set_num_threads(before)


@pytest.mark.parametrize("chunks", [1, 2, 7, 16])
def test_recurrent_layers_in_threads_give_stocks_segmentation_bit_for_bit(threads: int, chunks: int) -> None:
    stocks = untouched()._segmentation.model
    ours = copy.deepcopy(untouched())
    parts: list[tuple[str, int]] = []
    layers = ours._segmentation.model.lstm
    recur = layers.forward
    layers.forward = lambda some: parts.append((threading.current_thread().name, len(some))) or recur(some)
    assert recur_in_threads(ours)
    batch = torch.from_numpy(sample())[None].unfold(1, 10 * SAMPLE_RATE, SAMPLE_RATE).permute(1, 0, 2)[:chunks]

    with torch.inference_mode():
        assert torch.equal(ours._segmentation.model(batch), stocks(batch))

    assert sum(size for _, size in parts) == chunks
    assert len(parts) == min(chunks, threads)
    assert all(name.startswith("recurrent") for name, _ in parts)
    assert torch.get_num_threads() == threads, "the rest has all of them again"


def test_a_batch_that_fails_in_a_thread_fails(threads: int) -> None:
    ours = copy.deepcopy(untouched())

    def fail(_: torch.Tensor) -> None:
        raise RuntimeError("can't allocate memory")

    ours._segmentation.model.lstm.forward = fail
    assert recur_in_threads(ours)
    with pytest.raises(RuntimeError, match="can't allocate memory"), torch.inference_mode():
        ours._segmentation.model(torch.zeros((2, 1, 10 * SAMPLE_RATE)))
    assert torch.get_num_threads() == threads


def test_with_one_thread_there_is_nothing_to_share_out() -> None:
    assert torch.get_num_threads() == 1
    assert not recur_in_threads(copy.deepcopy(untouched()))


# Edge cases: stock's answer


def loop(start: float, end: float, seconds: float) -> NDArray[np.float32]:
    """A stretch of the sample again and again."""
    part = sample(start, end)
    return np.resize(part, int(seconds * SAMPLE_RATE))


@pytest.mark.parametrize(
    "samples",
    [
        pytest.param(lambda: np.zeros(12 * SAMPLE_RATE, np.float32), id="silence"),
        pytest.param(lambda: sample(7, 8), id="one second"),
        pytest.param(lambda: loop(7.2, 8.0, 13), id="one speaker"),
        pytest.param(lambda: loop(8, 14, 14) + loop(20, 26, 14), id="all the time two at once"),
    ],
)
@pytest.mark.timeout(600)
def test_unusual_recordings_get_stocks_answer(samples: Callable[[], NDArray[np.float32]]) -> None:
    given = pyannote().diarize_waveform(samples(), NO_HINTS, ignore)
    expected, _ = stock_diarization(samples(), str(BUNDLED_MODEL), batch_sizes=(8, 1))

    assert turns(given.segments) == turns(expected.segments)
    assert turns(given.exclusive_segments) == turns(expected.exclusive_segments)


def turns(segments: tuple[Turn, ...]) -> list[tuple[float, float, str]]:
    return [(turn.start, turn.end, turn.speaker) for turn in segments]


def test_the_fused_trunk_gives_the_trunks_frames() -> None:
    resnet = untouched()._embedding.model_.resnet
    bank = 3 * torch.randn((2, 200, 80), generator=torch.Generator().manual_seed(0))

    with torch.inference_mode():
        given, expected = FusedTrunk(resnet)(bank), resnet.forward_frames(bank.clone())

    assert given.shape == expected.shape
    assert float((given - expected).abs().max() / expected.abs().max()) < 2e-5


@pytest.mark.parametrize(
    ("seconds", "error", "taken"), [(0.9, 1e-6, True), (1.1, 1e-6, False), (0.9, 1e-3, False), (0.9, np.nan, False)]
)
def test_another_trunk_is_taken_where_it_is_faster_and_gives_the_same(
    seconds: float, error: float, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    resnet = untouched()._embedding.model_.resnet
    trunk, other = FusedTrunk(resnet), CudnnTrunk(resnet)
    runs = {trunk: (1.0, torch.tensor([0.5, 1.0])), other: (seconds, torch.tensor([0.5, 1.0 + error]))}
    monkeypatch.setattr("diarization.cudnn_trunk.timed", lambda trunk, bank: runs[trunk])

    assert faster(trunk, other, torch.zeros(1)) is (other if taken else trunk)


def test_cudnns_way_gives_the_trunks_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a CPU's convolutions in the place of its own: what is added to what, and cut off where."""

    def convolve(given: Any, weight: Any, bias: Any, *shape: Any) -> torch.Tensor:
        return conv2d(given, weight, bias, *shape).relu()

    def convolve_and_add(given: Any, weight: Any, addend: Any, factor: float, bias: Any, *shape: Any) -> torch.Tensor:
        return (conv2d(given, weight, bias, *shape) + factor * addend).relu()

    monkeypatch.setattr("torch.cudnn_convolution_relu", convolve)
    monkeypatch.setattr("torch.cudnn_convolution_add_relu", convolve_and_add)
    resnet = untouched()._embedding.model_.resnet
    bank = 3 * torch.randn((2, 200, 80), generator=torch.Generator().manual_seed(0))

    with torch.inference_mode():
        given, expected = CudnnTrunk(resnet)(bank), FusedTrunk(resnet)(bank)

    assert float((given - expected).abs().max() / expected.abs().max()) < 2e-5


def test_a_way_that_the_device_refuses_is_not_taken() -> None:
    """cuDNN's own on a CPU."""
    resnet = untouched()._embedding.model_.resnet
    trunk, other = FusedTrunk(resnet), CudnnTrunk(resnet)

    with pytest.raises(RuntimeError, match="cudnn_convolution_relu"), torch.inference_mode():
        other(torch.zeros((1, 80, 80)))
    assert faster(trunk, other, torch.zeros((1, 80, 80))) is trunk


# Segmentation


@pytest.mark.parametrize(("size", "batches"), [(1, [1] * 21), (8, [8, 8, 5])])
def test_convolutions_of_a_few_chunks_give_stocks_segmentation(
    size: int, batches: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CONVOLVED, "cpu", size)
    stocks = untouched()._segmentation.model
    ours = copy.deepcopy(untouched())
    assert convolve_chunkwise(ours)
    convolved: list[int] = []
    ours._segmentation.model.sincnet.conv1d[0].register_forward_hook(
        lambda _, given, __: convolved.append(len(given[0]))
    )
    chunks = torch.from_numpy(sample())[None].unfold(1, 10 * SAMPLE_RATE, SAMPLE_RATE).permute(1, 0, 2)
    with torch.inference_mode():
        given, expected = ours._segmentation.model(chunks), stocks(chunks)
    assert torch.equal(given, expected)
    assert convolved == batches
