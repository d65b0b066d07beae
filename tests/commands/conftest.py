"""Commands in the tests' own process."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable

import pytest

from tasks.__main__ import main


@pytest.fixture
def here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command as `tests.processes.run_cli` does, but for the seconds that a process takes to start."""

    def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["tasks", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert ended.value.code == code, err + out
        return subprocess.CompletedProcess(arguments, code, out, err)

    return run
