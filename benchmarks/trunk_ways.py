"""The speaker network's trunk in the ways that torch and cuDNN have to run it: seconds a chunk, and what they change.

    python -m benchmarks.trunk_ways [--device auto] [--batch 32]

A menu for whoever chooses what `diarization/` does on a device. What is float32 does without TF32, as in a job; the
difference is the largest one to the trunk as it is, as a part of the latter's largest value.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.make_meeting import SAMPLE_RATE, mix
from benchmarks.outcome import write
from diarization.cudnn_trunk import CHUNK_FRAMES, CudnnTrunk
from diarization.device import choose_device, first_line, timed
from diarization.diarizer import BUNDLED_MODEL
from diarization.fused_trunk import FusedTrunk
from diarization.hub import load_pipeline
from diarization.pipeline import BATCH_SIZES

CHUNK_SECONDS, CHUNK_GFLOP = 10, 45.2
FIGURES = ("chunk_seconds", "tflops", "difference")


def ways(resnet: Any) -> Iterator[tuple[str, Any, torch.dtype]]:
    """A name, the trunk of `resnet` to be run that way, and its precision."""
    yield "as it is", FusedTrunk(resnet), torch.float32
    yield "stock, not fused", resnet.forward_frames, torch.float32
    for name, precision in {"": torch.float32, "float16, ": torch.float16, "bfloat16, ": torch.bfloat16}.items():
        for order, layout in {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}.items():
            for kind, by in ((FusedTrunk, ""), (CudnnTrunk, ", relu by cuDNN")):
                trunk: Any = kind(resnet).to(precision)
                yield f"{name}{order}{by}", trunk.to(memory_format=layout), precision


@torch.inference_mode()
def measure(resnet: Any, bank: torch.Tensor) -> Iterator[dict[str, Any]]:
    """A row a way, which says why where it is refused; on a GPU also with the plans that cuDNN finds to be fastest."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        reference = FusedTrunk(resnet)(bank)
    for name, trunk, precision in ways(resnet):
        for search in (False, True) if bank.is_cuda else (False,):
            way = f"{name}, plans searched" if search else name
            try:
                with torch.backends.cudnn.flags(enabled=True, benchmark=search, allow_tf32=False):
                    seconds, frames = timed(trunk, bank.to(precision))
            except RuntimeError as error:
                yield {"way": way, "refused": first_line(error).partition(". ")[0]}
                continue
            yield {
                "way": way,
                "chunk_seconds": seconds / len(bank),
                "tflops": CHUNK_GFLOP * len(bank) * bank.shape[1] / CHUNK_FRAMES / seconds / 1000,
                "difference": ((frames.float() - reference).abs().max() / reference.abs().max()).item(),
            }


def main() -> int:
    """Measure, print a table, store the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trunk_ways", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N; default: auto")
    parser.add_argument("--batch", type=int, help="chunks at a time; default: as many as in a job on that device")
    given = parser.parse_args()
    device = choose_device(given.device)
    batch = given.batch or BATCH_SIZES[device.type].embedding
    model: Any = load_pipeline(str(BUNDLED_MODEL)).pipeline.to(device)._embedding.model_
    samples, _ = mix((CHUNK_SECONDS + batch) // 60 + 1, 4, 1, overlap=0.12, snr_db=30)
    chunks = torch.from_numpy(samples).unfold(0, CHUNK_SECONDS * SAMPLE_RATE, SAMPLE_RATE)[:batch, None]
    rows, shown = [], Table("way", *FIGURES, "refused")
    for row in measure(model.resnet, model.compute_fbank(chunks.to(device))):
        rows.append(row)
        figures = (f"{row[figure]:.3g}" if figure in row else "" for figure in FIGURES)
        shown.add_row(row["way"], *figures, row.get("refused"))
        write("trunk-ways", {"device": str(device), "batch": batch, "rows": rows})
    Console(width=150).print(shown)
    print("trunk_ways: ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
