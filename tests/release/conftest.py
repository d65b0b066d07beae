"""What a user gets: both distributions, and environments that hold the wheel and nothing of this checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tasks.tether import spawn_tethered
from tasks.valkey import EmbeddedValkey
from tests.processes import ROOT, wait_until

UV = Path(sys.executable).with_name("uv")


@dataclass(frozen=True)
class Distributions:
    """What `uv build` makes of this checkout: the wheel by way of the sdist."""

    wheel: Path
    sdist: Path


@dataclass(frozen=True)
class Installation:
    """A virtual environment with the wheel, used from a folder that is neither it nor the checkout.

    Attributes:
        bin: Its programs.
        folder: The working directory of all that runs in it.
        environment: All that its processes have for an environment.
    """

    bin: Path
    folder: Path
    environment: dict[str, str]

    def run(self, *command: str | Path, code: int = 0, folder: Path | None = None, **settings: str) -> str:
        """What a program of it prints, both streams; it must end with `code`."""
        done = subprocess.run(
            [self.bin / command[0], *command[1:]],
            cwd=folder or self.folder,
            env={**self.environment, **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, done.stdout
        return done.stdout


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    folder = tmp_path_factory.mktemp("dist")
    uv("build", "--out-dir", folder, ROOT)
    return Distributions(next(folder.glob("*.whl")), next(folder.glob("*.tar.gz")))


@pytest.fixture(scope="session")
def install(
    distributions: Distributions, server: EmbeddedValkey, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Installation]:
    """Makes installations: `install("--resolution", "lowest-direct")` passes options on to `uv pip install`."""

    def make(*options: str) -> Installation:
        folder = tmp_path_factory.mktemp("installation")
        uv("venv", "--python", sys.executable, folder / "venv")
        uv("pip", "install", "--python", folder / "venv", *options, distributions.wheel)
        (folder / "elsewhere").mkdir()
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "REDIS_URL": server.url}
        return Installation(folder / "venv" / "bin", folder / "elsewhere", environment)

    return make


@pytest.fixture(scope="session")
def installation(install: Callable[..., Installation]) -> Installation:
    """As `pip install diarize-queue` makes it: no torch."""
    return install()


@pytest.fixture(scope="session")
def worker_installation(install: Callable[..., Installation]) -> Installation:
    """As with the extra `worker`, which is not downloaded anew: torch and the rest come from the tests' environment."""
    made = install()
    site_packages = next(made.bin.parent.glob("lib/python*/site-packages"))
    # What a .pth adds comes last, and the .pth files in there, the checkout's own among them, are not read.
    (site_packages / "torch.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return made


@pytest.fixture
def start_installed_worker(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Starts `celery -A tasks worker` of an installation, and waits until it takes jobs; its log."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(installation: Installation, **settings: Any) -> Path:
        log = tmp_path / f"worker{len(processes)}.log"
        command = [installation.bin / "celery", "-A", "tasks", "worker", "-l", "info", "-n", f"w{len(processes)}@test"]
        environment = {**installation.environment, "STANDIN_DIR": str(tmp_path), **settings}
        with log.open("wb") as sink:
            process = spawn_tethered(command, stdout=sink, environment=environment, folder=installation.folder)
        processes.append(process)
        wait_until(lambda: process.poll() is not None or "@test ready" in log.read_text(), 120, "the worker is ready")
        assert process.poll() is None, log.read_text()
        return log

    yield start
    for process in processes:
        process.terminate()
        process.wait(60)


def uv(*arguments: str | Path) -> None:
    """Run the checkout's uv, which must succeed."""
    done = subprocess.run([UV, *arguments], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
