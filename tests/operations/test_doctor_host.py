"""The doctor on hosts that lack something: model, GPU, driver, ffmpeg, disk; nvidia-smi is a script of the test's."""

from __future__ import annotations

import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from diarization import probe
from diarization.ffmpeg import find_ffmpeg
from tasks.checks import environment, gpu, host, model
from tasks.checks.finding import Fault, Finding, Mark, Role, Subject
from tasks.checks.probing import ProbeFailed
from tasks.doctor import role_of
from tasks.settings import Settings, read_settings
from tests.hub import Hub, serving

GPUS = "NVIDIA L4, 580.95.05, 23034, 22000\nNVIDIA L4, 580.95.05, 23034, 21000"


def subject(role: Role = Role.GPU, **settings: Any) -> Subject:
    return Subject(Settings(**settings), role)


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts an nvidia-smi first on PATH that lists `gpus` and ends with `code`."""

    def install(gpus: str, cuda: str = "13.0", code: int = 0, does: str = "") -> None:
        script = tmp_path / "bin" / "nvidia-smi"
        script.parent.mkdir(exist_ok=True)
        banner = f"| NVIDIA-SMI 580.95.05   Driver Version: 580.95.05   CUDA Version: {cuda} |"
        script.write_text(
            f"#!/bin/sh\n{does}\ncase $1 in --query*) printf '%s' '{gpus}';; *) echo '{banner}';; esac\nexit {code}\n"
        )
        script.chmod(stat.S_IRWXU)
        monkeypatch.setenv("PATH", str(script.parent), prepend=":")

    return install


@pytest.mark.parametrize(
    ("gpus", "cuda", "code", "fault", "says"),
    [
        (GPUS, "13.0", 0, None, "NVIDIA L4 (23.1 of 24.2 GB free), NVIDIA L4 (22.0 of 24.2 GB free)"),
        (GPUS, "12.8", 0, gpu.OLD_DRIVER, "driver 580.95.05 for CUDA 12.8, and torch needs CUDA 13.0"),
        (GPUS.replace("21000", "900"), "13.1", 0, gpu.LITTLE_MEMORY, "0.9 of 24.2 GB free"),
        ("Failed to initialize NVML: Driver/library version mismatch", "", 18, gpu.SMI_FAILS, "version mismatch"),
        ("Unable to determine the device handle: GPU is lost", "13.0", 0, gpu.SMI_FAILS, "GPU is lost"),
        ("No devices were found", "13.0", 6, gpu.NO_GPU, "no GPU"),
    ],
)
def test_what_nvidia_smi_says(
    smi: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    gpus: str,
    cuda: str,
    code: int,
    fault: Fault | None,
    says: str,
) -> None:
    monkeypatch.setattr(gpu, "workers_here", lambda _: [])
    smi(gpus, cuda, code)
    found = gpu.driver(subject())
    assert found.fault is fault
    assert says in found.says


def test_an_nvidia_smi_that_hangs(smi: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "SMI_SECONDS", 0.2)
    smi(GPUS, does="exec sleep 60")
    assert gpu.driver(subject()).fault is gpu.SMI_FAILS
    assert gpu.driver(subject(diarization_device="cpu")).mark is Mark.SKIPPED


def test_a_gpu_without_driver_and_a_driver_without_tools(tmp_path: Path) -> None:
    assert gpu.without_smi(tmp_path, tmp_path).fault is gpu.NO_GPU
    card = tmp_path / "0000:01:00.0"
    card.mkdir()
    (card / "vendor").write_text("0x10de\n")
    (card / "class").write_text("0x030200\n")
    assert gpu.without_smi(tmp_path, tmp_path).fault is gpu.NO_DRIVER
    version = tmp_path / "driver/nvidia/version"
    version.parent.mkdir(parents=True)
    version.write_text("NVRM version: …")
    assert gpu.without_smi(tmp_path, tmp_path).fault is gpu.NO_SMI


def told(**changes: Any) -> dict[str, Any]:
    """What the probe tells of a host with one good GPU, but for `changes`."""
    well = {"torch": "2.11.0+cu130", "cuda": "13.0", "count": 1, "says": "", "too_old": [], "chosen": "cuda:0"}
    return {**well, **changes}


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({}, None),
        ({"torch": "2.11.0+cpu", "cuda": None, "count": 0, "chosen": "cpu"}, gpu.CPU_TORCH),
        ({"count": 0, "chosen": "cpu", "says": "The NVIDIA driver on your system is too old"}, gpu.BLIND_TORCH),
        ({"too_old": ["Tesla P100"]}, gpu.OLD_GPU),
        ({"error": "the device cuda:3 was asked for, but torch sees 1 CUDA devices"}, gpu.NO_DEVICE),
    ],
)
def test_what_torch_makes_of_a_gpu_that_is_there(
    smi: Callable[..., None], monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], fault: Fault | None
) -> None:
    smi(GPUS)
    monkeypatch.setattr(gpu, "probe", lambda *_: told(**changes))
    found = gpu.torch(subject())
    assert found.fault is fault
    assert changes.get("says", "") in found.says


def test_a_gpu_that_torch_was_not_built_for() -> None:
    cuda = SimpleNamespace(
        get_arch_list=lambda: ["sm_75", "sm_90", "sm_120a", "compute_120"],
        device_count=lambda: 2,
        get_device_name=lambda index: ("Tesla P100", "H100")[index],
        get_device_capability=lambda index: ((6, 0), (9, 0))[index],
    )
    assert probe.too_old(cuda) == ["Tesla P100"]


def test_torch_itself_is_asked() -> None:
    found = gpu.torch(subject(diarization_device="cuda:99"))
    assert found.fault is gpu.NO_DEVICE
    assert "cuda:99 was asked for" in found.says


def test_the_bundled_model_loads_and_reports_to_nobody() -> None:
    found = model.model(subject(queue_start_timeout_seconds=3600))
    assert (found.mark, "telemetry is off" in found.says) == (Mark.OK, True), found


@pytest.mark.parametrize(
    ("changes", "fault"), [({"telemetry": True}, model.TELEMETRY), ({"seconds": 200.0}, model.SLOW_START)]
)
def test_a_model_that_loads_and_is_not_well(
    changes: dict[str, Any], fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    well = {"name": "mine", "revision": "0123456789", "seconds": 1.0, "telemetry": False}
    monkeypatch.setattr(model, "probe", lambda *_: {**well, **changes})
    assert model.model(subject()).fault is fault


def test_a_hub_that_refuses_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Hub({"someone/pipeline": {"config.yaml": b""}})) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path))
        found = model.model(subject(diarization_model="someone/pipeline", hf_token=SecretStr("hf_expired")))
        assert (found.fault, "refuses HF_TOKEN (401)" in found.says) == (model.NO_MODEL, True)
        assert "hf_expired" not in found.says


def test_a_diarizer_of_ones_own_is_found_and_not_loaded() -> None:
    assert model.model(subject(diarization_diarizer="tests.standin:load")).mark is Mark.OK
    found = model.model(subject(diarization_diarizer="tests.nowhere:load"))
    assert (found.fault, "tests.nowhere:load cannot be imported" in found.says) == (model.NO_MODEL, True)


def test_a_loader_that_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "deadly_loader.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = model.model(subject(diarization_diarizer="deadly_loader:load"))
    assert (found.fault, "it ended with -9" in found.says) == (model.MODEL_FAILS, True)


def test_libraries_that_are_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "missing_libraries", lambda: ["torch"])
    assert model.model(subject()).fault is model.NO_LIBRARIES


def disk(monkeypatch: pytest.MonkeyPatch, folder: str) -> Finding:
    monkeypatch.setattr(tempfile, "tempdir", folder)
    monkeypatch.setenv("TMPDIR", folder)
    return host.temp(subject(diarization_max_bytes=1))


def test_the_temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert disk(monkeypatch, str(tmp_path)).mark is Mark.OK
    assert disk(monkeypatch, str(tmp_path / "nowhere")).fault is host.NO_TEMP
    others = tmp_path / "others"
    others.mkdir()
    disk(monkeypatch, str(others))
    next(others.iterdir()).chmod(0o777)
    assert host.temp(subject()).fault is host.NO_TEMP, "the folder of the gate is somebody else's, too"
    disk(monkeypatch, str(tmp_path))
    assert host.temp(subject(diarization_max_bytes=2**60)).fault is host.SMALL_TEMP


@pytest.mark.parametrize(
    ("free_gb", "running", "fault"),
    [
        (64, [], None),
        (5, [], host.SHORT_OF_MEMORY),
        (5, [7], None),
        (1.5, [], host.LITTLE_MEMORY),
        (1.5, [7], host.SHORT_OF_MEMORY),
        (0, [7], host.LITTLE_MEMORY),
    ],
)
def test_memory_beside_what_recordings_take(
    free_gb: float, running: list[int], fault: Fault | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "available_bytes", lambda: int(free_gb * 1e9))
    monkeypatch.setattr(host, "workers_here", lambda _: running)
    assert host.memory(subject()).fault is fault


@pytest.mark.parametrize(("processes", "fault"), [(1, host.SHORT_OF_MEMORY), (2, host.LITTLE_MEMORY)])
def test_each_process_of_a_worker_holds_a_model(processes: int, fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "available_bytes", lambda: 2_200_000_000)
    monkeypatch.setattr(host, "workers_here", lambda _: [])
    assert host.memory(subject(diarization_jobs_per_gpu=processes)).fault is fault


def test_ffmpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_ffmpeg().path in host.ffmpeg(subject()).says
    find_ffmpeg.cache_clear()
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.setattr("diarization.ffmpeg._bundled_ffmpeg", lambda: None)
    assert host.ffmpeg(subject()).fault is host.NO_FFMPEG
    find_ffmpeg.cache_clear()


def test_recordings_of_a_volume(tmp_path: Path) -> None:
    assert host.recordings(subject(diarization_recordings_dir=tmp_path)).mark is Mark.OK
    assert host.recordings(subject(diarization_recordings_dir=tmp_path / "no")).fault is host.NO_RECORDINGS


def test_a_producer_whose_own_tasks_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment.producer(subject(Role.PRODUCER)).mark is Mark.OK
    (tmp_path / "tasks.py").write_text("")
    monkeypatch.chdir(tmp_path)
    assert environment.producer(subject(Role.PRODUCER)).fault is environment.SHADOWED


@pytest.mark.parametrize(
    ("told", "fault"),
    [
        ({"folder": str(Path(host.__file__).parents[1]), "torch": True, "seconds": 9.0}, environment.HEAVY),
        ({"folder": "/srv/backend/tasks", "torch": False, "seconds": 0.1}, environment.SHADOWED),
        (ProbeFailed("it ended with 1 and said: ModuleNotFoundError: No module named 'celery'"), environment.NO_IMPORT),
    ],
)
def test_what_an_import_can_come_to(told: Any, fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(*_: Any) -> Any:
        if isinstance(told, Exception):
            raise told
        return told

    monkeypatch.setattr(environment, "ask_process", answer)
    assert environment.producer(subject(Role.PRODUCER)).fault is fault


def test_a_torch_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise ProbeFailed("it ended with 1 and said: ImportError: libcudart.so.13")

    monkeypatch.setattr(gpu, "probe", fail)
    found = gpu.torch(subject())
    assert (found.fault, "libcudart" in found.says) == (gpu.TORCH_FAILS, True)


def test_names_that_are_like_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment.settings(subject()).mark is Mark.OK
    monkeypatch.setenv("RUNPOD_API_KEYS", "s3cret")
    found = environment.settings(subject())
    assert (found.fault, found.says) == (
        environment.LOOKALIKE,
        "RUNPOD_API_KEYS is no setting; is RUNPOD_API_KEY meant?",
    )


@pytest.mark.parametrize(
    ("given", "has_torch", "role"),
    [
        ("bridge", True, Role.BRIDGE),
        ("gpu", False, Role.GPU),
        (None, True, Role.GPU),
        (None, False, Role.PRODUCER),
    ],
)
def test_what_a_host_is_for(given: str | None, has_torch: bool, role: Role, monkeypatch: pytest.MonkeyPatch) -> None:
    if given:
        monkeypatch.setenv("WORKER_ROLE", given)
    monkeypatch.setattr("tasks.doctor.find_spec", lambda _: object() if has_torch else None)
    assert role_of(read_settings()) is role
