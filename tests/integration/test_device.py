"""What a failure of the device means."""

from __future__ import annotations

import copy
import gc
import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch

from diarization.device import choose_device, device_failure
from diarization.errors import Cancelled, DeviceLost, ModelUnavailable, OutOfMemory
from diarization.filter_bank import FilterBank
from diarization.pipeline import BATCH_SIZES
from diarization.turns import SpeakerHints
from tests.pyannote_model import pyannote, sample


def test_auto_is_a_device_that_works() -> None:
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_device("cpu").type == "cpu"


def test_a_device_that_is_not_there_says_what_to_do() -> None:
    with pytest.raises(ModelUnavailable, match=r"cuda:99 was asked for.*set DIARIZATION_DEVICE to auto or cpu"):
        choose_device("cuda:99")


@pytest.mark.parametrize("name", ["", "gpu", "cuda:", "cuda:-1", "mps"])
def test_what_is_no_device_is_refused(name: str) -> None:
    with pytest.raises(ModelUnavailable, match="is none of auto, cpu, cuda and cuda:N"):
        choose_device(name)


def test_memory_that_the_machine_does_not_have_is_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60)

    assert isinstance(device_failure(raised.value), OutOfMemory)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has…"), OutOfMemory),
        (MemoryError("batch_size ( 32) is probably too large."), OutOfMemory),
        (RuntimeError("CUDA error: out of memory"), OutOfMemory),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), OutOfMemory),
        (RuntimeError("GET was unable to find an engine to execute this computation"), OutOfMemory),
        (RuntimeError("FIND was unable to find an engine to execute this computation"), OutOfMemory),
        (RuntimeError("No valid execution plans built"), OutOfMemory),
        (RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might…"), DeviceLost),
        (RuntimeError("CUDA error: device-side assert triggered"), DeviceLost),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(…)`"), DeviceLost),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"), DeviceLost),
        (RuntimeError("cuFFT error: CUFFT_INTERNAL_ERROR"), DeviceLost),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), type(None)),
        (ValueError("CUDA error: said by somebody else"), type(None)),
    ],
)
def test_failures_are_told_apart(error: Exception, expected: type) -> None:
    failure = device_failure(error)

    assert type(failure) is expected
    assert failure is None or "\n" not in str(failure)


def test_a_gpu_is_warmed_up_with_as_much_as_it_will_be_given_and_keeps_nothing_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: dict[str, list[int]] = {"segmentation": [], "embedding": [], "kept": []}
    sizes = replace(BATCH_SIZES["cuda"], segmentation=5, embedding=2)
    monkeypatch.setitem(BATCH_SIZES, "cuda", sizes)
    monkeypatch.setattr("torch.cuda.empty_cache", lambda: seen["kept"].append(0))
    diarizer: Any = copy.copy(pyannote())
    diarizer.device = torch.device("cuda")
    networks = {
        "segmentation": diarizer._pipeline._segmentation.model,
        "embedding": diarizer._pipeline.get_embeddings.__self__._trunk,
    }
    hooks = [
        network.register_forward_pre_hook(lambda _, given, name=name: seen[name].append(len(given[0])))
        for name, network in networks.items()
    ]

    diarizer.warm_up()

    for hook in hooks:
        hook.remove()
    assert seen == {"segmentation": [1, 5], "embedding": [1, 1], "kept": [0]}, "this one's batches are a CPU's"


def test_a_gpu_that_fails_once_more_when_memory_is_given_back_is_still_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one does whose context is broken. Any other error would end the job for good, and the process would go on."""

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    diarizer: Any = copy.copy(pyannote())
    diarizer.device, diarizer._pipeline = torch.device("cuda"), fails
    monkeypatch.setattr("torch.cuda.empty_cache", fails)

    with pytest.raises(DeviceLost):
        diarizer.diarize_waveform(sample(), SpeakerHints(), lambda stage, done, total: None)


def test_a_job_that_is_cancelled_holds_nothing_when_memory_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors that live in the frames of an error would stay on the GPU, beside those of whoever computes next."""
    held: list[weakref.ref[FilterBank]] = []
    alive: list[FilterBank | None] = []

    def cancel(stage: str, done: int, total: int) -> None:
        if stage == "embedding" and done:
            held.extend(weakref.ref(one) for one in gc.get_objects() if isinstance(one, FilterBank))
            raise Cancelled("no longer wanted")

    monkeypatch.setattr("torch.cuda.empty_cache", lambda: alive.extend(one() for one in held))
    diarizer = copy.copy(pyannote())
    diarizer.device = torch.device("cuda")

    with pytest.raises(Cancelled):
        diarizer.diarize_waveform(sample(5, 20), SpeakerHints(), cancel)

    assert alive == [None]
