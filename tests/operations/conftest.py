"""A host with GPUs, as far as nvidia-smi says."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def nvidia_smi(tmp_path: Path) -> Callable[[str], str]:
    """Puts an nvidia-smi that lists such GPUs first; the PATH where it is."""

    def install(listing: str, status: int = 0) -> str:
        folder = tmp_path / "bin"
        folder.mkdir()
        script = folder / "nvidia-smi"
        script.write_text(f"#!/bin/sh\ncat <<'LISTING'\n{listing}LISTING\nexit {status}\n")
        script.chmod(0o755)
        return f"{folder}:{os.environ['PATH']}"

    return install
