"""What docs/submit.md and docs/start.md tell to type works, block by block, in one process as in a reader's session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis

from tasks.record import State
from tests.pages import code_blocks
from tests.processes import ROOT, Worker

REPORTS = "# reports.py\n"
MARK = "-- block"
Python = Callable[..., str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the backend that the page writes."""
    folder = tmp_path_factory.mktemp("backend")
    (reports,) = (block for block in code_blocks("submit.md", "python") if block.startswith(REPORTS))
    (folder / "reports.py").write_text(reports)
    return folder


@pytest.fixture(autouse=True)
def workers(module_redis: Redis, start_module_worker: Callable[..., Worker], folder: Path) -> None:
    """The stand-in, which opens no socket, and the worker of the backend's own steps."""
    start_module_worker()
    start_module_worker(arguments=("-A", "reports"), PYTHONPATH=folder)


def test_every_block_of_submit(python: Python, folder: Path) -> None:
    blocks = [block for block in code_blocks("submit.md", "python") if not block.startswith(REPORTS)]
    marked = [f"print({MARK!r})\n{block}" for block in blocks]
    said = python("\n".join(marked), cwd=folder, PYTHONPATH=f"{ROOT}:{folder}").split(f"{MARK}\n")[1:]

    def answer(code: str) -> str:
        (number,) = (number for number, block in enumerate(blocks) if code in block)
        return said[number]

    assert answer("job.warning") == "its signed URL has run out (2023-11-14 22:13:20 UTC)\n"
    assert answer("job.state") == "SUCCESS\n"
    state, _, place, *finish = answer("position.finish_at").splitlines()
    assert state in set(State)
    assert place == "None" or "done at about 20" in finish[0], "or it has ended by then"
    assert answer("chain(").startswith("{'SPEAKER_00': ")
    assert answer("group(") == "[2, 2, 2]\n"
    assert answer("chord(") == "0.025\n"
    assert answer("first.id == again.id") == answer("diarize.delete") == "True\n"


def test_the_backend_of_start(python: Python, folder: Path) -> None:
    (app,) = code_blocks("start.md", "python")
    turns = python(app, cwd=folder).splitlines()
    assert turns
    assert all(turn.split()[2].startswith("SPEAKER_0") for turn in turns)
