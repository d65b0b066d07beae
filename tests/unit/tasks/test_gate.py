"""What children that come and go say of their diarizer."""

from __future__ import annotations

from pathlib import Path

from tasks.gate import Gate
from tasks.settings import Settings


def test_a_file_that_is_renamed_while_it_is_read_is_passed_over(tmp_path: Path) -> None:
    gate = Gate(1, Settings(queue_runtime_dir=tmp_path))
    gate.folder.mkdir()
    (gate.folder / "2.ready").symlink_to("gone")
    assert gate.about() == {}
    (gate.folder / "2.lost").write_text('{"device": "cuda:0"}')
    assert gate.about() == {"device": "cuda:0"}
