"""Exact speed-up on a CPU: the segmentation network's recurrent layers, a part of the batch in each thread.

What it proves: a chunk's way through the recurrent layers touches no other chunk of its batch. Torch shares each of
their 589 steps out among its threads, which have little to do in a step and then wait for each other: where they sleep
while they wait (`OMP_WAIT_POLICY=PASSIVE`, as in a worker), two threads took four times as long as one. Here each
thread has chunks of its own for all the steps. The outputs are the same, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, cast

import torch

from diarization.upstream import PyanNet, SpeakerDiarization


def recur_in_threads(pipeline: SpeakerDiarization) -> bool:
    """Let `pipeline` segment this way; False where its network is of another kind, or there is no second thread."""
    model, threads = pipeline._segmentation.model, torch.get_num_threads()
    if not isinstance(model, PyanNet) or model.device.type != "cpu" or threads == 1:
        return False
    if not model.hparams["lstm"]["monolithic"]:  # but a list of layers, with dropout between them
        return False
    layers = cast(Any, model.lstm)
    recur, pool = layers.forward, ThreadPoolExecutor(threads, thread_name_prefix="recurrent")

    @torch.inference_mode()
    def recur_part(features: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = recur(features)[0]
        return outputs.transpose(0, 1)

    def forward(features: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Shape (chunks, frames, features); the last state is of no use to PyanNet."""
        parts = torch.split(features, -(-len(features) // threads))
        with _one_thread_each():
            outputs = list(pool.map(recur_part, parts))
        # As torch lays them out: in another order the layers that follow round in another way.
        return torch.cat(outputs, dim=1).transpose(0, 1), None

    layers.forward = forward
    return True


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Torch shares out nothing among its threads meanwhile, whoever calls it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
