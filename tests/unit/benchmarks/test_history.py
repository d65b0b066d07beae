"""What a server wrote, from its append-only file."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.history import History


def write(folder: Path, number: int, *commands: tuple[str, ...], cut: int = 0) -> None:
    """An append-only file, without its last bytes."""
    lines = ["#TS:1790000000\r\n"]
    for command in commands:
        lines.append(f"*{len(command)}\r\n")
        lines += [f"${len(word.encode())}\r\n{word}\r\n" for word in command]
    text = "".join(lines).encode()
    (folder / "appendonlydir").mkdir(exist_ok=True)
    (folder / "appendonlydir" / f"appendonly.aof.{number}.incr.aof").write_bytes(text[: len(text) - cut])


def state(job_id: str, value: str) -> tuple[str, ...]:
    return ("HSET", f"q:job:{job_id}", "state", value, "shown", f"http://é/{job_id}")


def answer(job_id: str, status: str, result: object) -> tuple[str, ...]:
    return ("SET", f"q:celery-task-meta-{job_id}", json.dumps({"status": status, "result": result}), "PXAT", "1")


def test_states_and_answers_in_the_order_of_the_files(tmp_path: Path) -> None:
    write(tmp_path, 10, state("a", "done"), answer("a", "SUCCESS", 1), state("a", "running"))
    write(
        tmp_path, 9, ("MULTI",), state("a", "queued"), ("HSET", "q:job:a", "percent", "5"), answer("a", "STARTED", {})
    )
    job = History.read(tmp_path, "q:").jobs["a"]
    assert job.states == ["queued", "done", "running"]
    assert job.after_its_end == ["running"]
    assert job.answers == [("SUCCESS", "1")]
    assert job.shown == "http://é/a"


def test_a_job_that_has_not_ended_has_nothing_after_its_end(tmp_path: Path) -> None:
    write(tmp_path, 1, state("a", "queued"), state("a", "running"), ("DEL", "q:job:a"))
    assert History.read(tmp_path, "q:").jobs["a"].after_its_end == []


def test_a_command_that_was_cut_off_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path, 1, state("a", "queued"), state("a", "done"), cut=30)
    assert History.read(tmp_path, "q:").jobs["a"].states == ["queued"]
