"""Whether there is a GPU, a driver for it, and a torch that gets on with both."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tasks.checks.finding import GPU, Check, Fault, Finding, Subject, fine, risk, skipped
from tasks.checks.probing import ProbeFailed, missing_libraries, probe
from tasks.gate import workers_here

SMI_SECONDS = 10.0
TORCH_SECONDS = 60.0
NEEDED_CUDA = (13, 0)
"""Of torch 2.11 as uv.lock pins it; docs.nvidia.com/cuda/cuda-toolkit-release-notes: its first driver is 580."""
WANTED_GB = 3.0
"""Worked out, no GPU has been measured: two processes with a context of half a GB each, and batches of 1.5 GB in one of
them at a time. Below it batches are halved, which costs time alone."""
NO_DEVICES = "No devices were found"
"""What nvidia-smi says, with an exit code of 6, where there is a driver and this process is given no GPU."""
NVIDIA, DISPLAY = "0x10de", "0x03"
"""PCI's vendor, and the first byte of the class of what draws or computes."""

NO_GPU = risk(
    "no_gpu",
    "this GPU worker has no NVIDIA GPU: it works, many times slower",
    "give the container its GPUs (--gpus all, NVIDIA Container Toolkit); or leave it at that, and set "
    "DIARIZATION_DEVICE=cpu",
)
NO_DRIVER = Fault(
    "no_driver",
    "the machine has an NVIDIA GPU and no driver",
    "install NVIDIA's driver 580 or newer on the host, and reboot; containers bring none",
)
NO_SMI = risk(
    "no_smi",
    "the driver is there, nvidia-smi is not",
    "give the container the driver's tools: NVIDIA_DRIVER_CAPABILITIES=compute,utility",
)
SMI_FAILS = Fault(
    "smi_fails",
    "nvidia-smi fails or hangs: the driver, or a GPU, is broken",
    "dmesg | grep -i nvrm says why (an Xid, or a driver that was upgraded under a running kernel); reboot the host",
)
OLD_DRIVER = Fault(
    "old_driver", "the driver is older than torch's CUDA 13.0", "upgrade the host's NVIDIA driver to 580 or newer"
)
LITTLE_MEMORY = risk(
    "little_gpu_memory",
    "little of the GPU's memory is free: batches are halved, or jobs end as out_of_memory",
    "take other processes off the GPU (nvidia-smi lists them), or run fewer workers on it",
)
CPU_TORCH = Fault(
    "cpu_torch",
    "there is a GPU, and the torch that is installed cannot use one",
    "install torch with CUDA: pip install --force-reinstall 'diarize-queue[worker]' from PyPI, not from a CPU index",
)
BLIND_TORCH = Fault(
    "blind_torch",
    "nvidia-smi shows a GPU, torch does not",
    "check CUDA_VISIBLE_DEVICES, /dev/nvidia* in the container, and that the host's driver is 580 or newer",
)
OLD_GPU = Fault(
    "old_gpu",
    "torch was not built for a GPU this old",
    "use a GPU of 2018 or later (compute capability 7.5), or the CPU",
)
NO_DEVICE = Fault(
    "no_device",
    "the device that DIARIZATION_DEVICE names is not there or does not work; no worker starts",
    "set DIARIZATION_DEVICE=auto, or cuda:N with N below the number of GPUs that this process is given",
)
TORCH_FAILS = Fault(
    "torch_fails",
    "torch cannot be imported or hangs",
    "pip install --force-reinstall 'diarize-queue[worker]'; where it hangs, the GPU does: reboot the host",
)


@dataclass(frozen=True)
class Gpu:
    """One that nvidia-smi lists; memory in GB of 10^9 bytes."""

    name: str
    driver: str
    total_gb: float
    free_gb: float


class SmiFailed(Exception):
    """nvidia-smi gave no answer. The message says how it ended."""


def driver(subject: Subject) -> Finding:
    """What the machine has, and what its driver says."""
    if subject.settings.diarization_device == "cpu":
        return skipped("DIARIZATION_DEVICE is cpu")
    smi = shutil.which("nvidia-smi")
    if smi is None:
        return without_smi()
    try:
        gpus = list_gpus(smi)
        if not gpus:
            return NO_GPU.found("nvidia-smi lists no GPU")
        cuda = cuda_of_driver(smi)
    except SmiFailed as error:
        return SMI_FAILS.found(str(error))
    each = ", ".join(f"{gpu.name} ({gpu.free_gb:.1f} of {gpu.total_gb:.1f} GB free)" for gpu in gpus)
    says = f"{each}; driver {gpus[0].driver}" + (f" for CUDA {cuda[0]}.{cuda[1]}" if cuda else "")
    if cuda and cuda < NEEDED_CUDA:
        return OLD_DRIVER.found(f"{says}, and torch needs CUDA 13.0")
    # A worker that runs here keeps what it has had of the GPU.
    is_short = not workers_here(subject.settings) and min(gpu.free_gb for gpu in gpus) < WANTED_GB
    return LITTLE_MEMORY.found(says) if is_short else fine(says)


def without_smi(proc: Path = Path("/proc"), pci: Path = Path("/sys/bus/pci/devices")) -> Finding:
    """What else tells of a GPU."""
    if (proc / "driver/nvidia/version").exists():
        return NO_SMI.found("the driver is loaded, nvidia-smi is not on PATH")
    if any(_says(one, "vendor") == NVIDIA and _says(one, "class").startswith(DISPLAY) for one in pci.glob("*")):
        return NO_DRIVER.found("an NVIDIA GPU is in this machine, and no driver is loaded")
    return NO_GPU.found("no NVIDIA GPU and no driver")


def _says(device: Path, name: str) -> str:
    try:
        return (device / name).read_text().strip()
    except OSError:
        return ""


def list_gpus(smi: str) -> list[Gpu]:
    """The GPUs that this process is given.

    Raises:
        SmiFailed: There is no list.
    """
    fields = "name,driver_version,memory.total,memory.free"
    gpus = []
    for line in _smi(smi, f"--query-gpu={fields}", "--format=csv,noheader,nounits").splitlines():
        parts = [part.strip() for part in line.rsplit(",", 3)]
        if len(parts) < 4:  # of a GPU that is lost there is a sentence
            raise SmiFailed(f"nvidia-smi says: {line}")
        gpus.append(Gpu(parts[0], parts[1], _gigabytes(parts[2]), _gigabytes(parts[3])))
    return gpus


def _gigabytes(mebibytes: str) -> float:
    """From what nvidia-smi says; 0 where it does not know (`[N/A]`)."""
    return int(mebibytes) * 1024**2 / 1e9 if mebibytes.isdigit() else 0.0


def cuda_of_driver(smi: str) -> tuple[int, int] | None:
    """The newest CUDA that the driver knows; None where it does not say."""
    match = re.search(r"CUDA(?: UMD)? Version\s*:\s*(\d+)\.(\d+)", _smi(smi))
    return (int(match[1]), int(match[2])) if match else None


def _smi(smi: str, *arguments: str) -> str:
    try:
        done = subprocess.run([smi, *arguments], capture_output=True, text=True, timeout=SMI_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise SmiFailed(f"nvidia-smi gives no answer within {SMI_SECONDS:.0f} s") from None
    except OSError as error:
        raise SmiFailed(f"nvidia-smi cannot be started: {error.strerror}") from None
    if done.returncode and NO_DEVICES in done.stdout + done.stderr:
        return ""
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines() or ["nothing"]
        raise SmiFailed(f"nvidia-smi ended with {done.returncode} and said: {said[0]}")
    return done.stdout


def torch(subject: Subject) -> Finding:
    """What torch makes of it, and whether DIARIZATION_DEVICE works."""
    if missing := missing_libraries():
        return skipped(f"not installed: {', '.join(missing)}")
    wanted = subject.settings.diarization_device
    try:
        told = probe("device", {"device": wanted}, TORCH_SECONDS)
    except ProbeFailed as error:
        return TORCH_FAILS.found(f"a process that imports torch failed: {error}")
    says = f"torch {told['torch']}"
    there = shutil.which("nvidia-smi") is not None and wanted != "cpu"
    if there and not told["cuda"]:
        return CPU_TORCH.found(f"{says} is built without CUDA")
    if there and not told["count"] and _has_gpu():
        return BLIND_TORCH.found(f"{says} sees no GPU" + (f": {told['says']}" if told["says"] else ""))
    if told["too_old"]:
        return OLD_GPU.found(f"{says} was not built for {', '.join(told['too_old'])}")
    if "error" in told:
        return NO_DEVICE.found(told["error"])
    return fine(f"{says}, DIARIZATION_DEVICE={wanted} is {told['chosen']}")


def _has_gpu() -> bool:
    smi = shutil.which("nvidia-smi")
    try:
        return smi is not None and bool(list_gpus(smi))
    except SmiFailed:
        return False


CHECKS = (
    Check(
        "host",
        "gpu",
        "nvidia-smi",
        driver,
        (NO_GPU, NO_DRIVER, NO_SMI, SMI_FAILS, OLD_DRIVER, LITTLE_MEMORY),
        GPU,
        timeout_seconds=3 * SMI_SECONDS,
    ),
    Check(
        "host",
        "torch",
        "torch and DIARIZATION_DEVICE",
        torch,
        (CPU_TORCH, BLIND_TORCH, OLD_GPU, NO_DEVICE, TORCH_FAILS),
        GPU,
        timeout_seconds=TORCH_SECONDS + 2 * SMI_SECONDS,
    ),
)
