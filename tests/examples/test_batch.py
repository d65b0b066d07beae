"""examples/batch.py: a real queue, a stand-in at the workers, and everything that stops it half-way."""

from __future__ import annotations

import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from redis import Redis

from diarization.scoring import read_rttm
from tasks.diarize import diarize
from tasks.record import State
from tasks.tether import spawn_tethered
from tasks.valkey import EmbeddedValkey
from tests.examples.conftest import EXAMPLES, run_example
from tests.processes import ROOT, Worker, wait_until
from tests.standin import read_journal

SECRET = "CANARY-signature"


def write_list(path: Path, *urls: str) -> str:
    path.write_text("# what is to be done\n\n" + "\n".join(urls) + "\n")
    return str(path)


def starts(folder: Path) -> Counter[str]:
    return Counter(entry["what"] for entry in read_journal(folder) if entry["event"] == "start")


def test_urls_become_files_and_failures_say_what_to_do(
    redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    worker = start_worker()
    good = [f"http://stand.in/turns/{seconds}/2/a.wav?X-Amz-Signature={SECRET}" for seconds in (20, 40)]
    bad = f"http://stand.in/fail/recording_not_found/b.wav?X-Amz-Signature={SECRET}"
    urls = write_list(tmp_path / "urls.txt", *good, bad)
    done = run_example("batch.py", urls, str(tmp_path / "turns"), code=1)
    names = sorted(path.name for path in (tmp_path / "turns").iterdir())
    assert names == ["stand.in_turns_20_2_a.wav.rttm", "stand.in_turns_40_2_a.wav.rttm"]
    assert max(turn.end for turn in read_rttm(tmp_path / "turns" / names[1])) > 30
    assert "recording_not_found: attempt 1 was told to fail\n  Check the URL" in done.stdout
    assert "2 done, 1 failed" in done.stderr
    assert SECRET not in done.stdout + done.stderr + worker.log

    # Again, signed anew: nothing is done twice, and what failed fails without being tried.
    urls = write_list(tmp_path / "urls.txt", *(url + "2" for url in (*good, bad)))
    again = run_example("batch.py", urls, str(tmp_path / "turns"), code=1)
    assert "2 of them done before" in again.stderr
    assert set(starts(worker.folder).values()) == {1}
    run_example("batch.py", urls, str(tmp_path / "turns"), "--retry-failed", code=1)
    assert sorted(starts(worker.folder).values()) == [1, 1, 2]


def test_a_folder_and_what_changes_in_it(redis: Redis, start_worker: Callable[..., Worker], tmp_path: Path) -> None:
    worker, folder, turns = start_worker(), tmp_path / "meetings", tmp_path / "turns"
    (folder / "2026").mkdir(parents=True)
    for name in ("a.wav", "a.MP3", "2026/a.wav", "notes.txt"):
        (folder / name).write_bytes(b"RIFF")
    assert "3 done, 0 failed" in run_example("batch.py", str(folder), str(turns), "--num-speakers", "3").stderr
    written = sorted(path.relative_to(turns).as_posix() for path in turns.rglob("*.rttm"))
    assert written == ["2026/a.wav.rttm", "a.MP3.rttm", "a.wav.rttm"]
    assert len({turn.speaker for turn in read_rttm(turns / "a.wav.rttm")}) == 3
    (folder / "a.wav").write_bytes(b"RIFF, and longer")
    (turns / "a.wav.rttm").unlink()
    (turns / "a.MP3.rttm").unlink()
    run_example("batch.py", str(folder), str(turns), "--num-speakers", "3")
    # The file that is another now is done again; the other's turns come from the queue.
    assert Counter(starts(worker.folder).values()) == {1: 2, 2: 1}
    assert (turns / "a.MP3.rttm").exists()


def test_it_goes_on_after_kill_9_and_while_redis_is_away(
    redis: Redis, server: EmbeddedValkey, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    urls = write_list(tmp_path / "urls.txt", *(f"http://stand.in/work/60/0.2/{number}" for number in range(12)))
    turns, worker = tmp_path / "turns", start_worker()
    command = [sys.executable, str(EXAMPLES / "batch.py"), urls, str(turns)]
    first = spawn_tethered(command, folder=ROOT)
    wait_until(lambda: list(turns.glob("*.rttm")))
    first.kill()
    first.wait()
    with (tmp_path / "log").open("wb") as log:
        second = spawn_tethered(command, stdout=log, folder=ROOT)
    wait_until(lambda: diarize.records.newest(State.DONE), seconds=60)
    server.kill()
    server.start()
    assert second.wait(60) == 0
    assert len(list(turns.glob("*.rttm"))) == 12
    assert not list(turns.glob("*.part"))
    assert set(starts(worker.folder).values()) == {1}


def test_ctrl_c_leaves_the_jobs_to_the_queue(redis: Redis, tmp_path: Path) -> None:
    urls = write_list(tmp_path / "urls.txt", "http://stand.in/turns/20/2")
    with (tmp_path / "log").open("wb") as log:
        process = spawn_tethered(
            [sys.executable, str(EXAMPLES / "batch.py"), urls, str(tmp_path / "turns")], stdout=log, folder=ROOT
        )
    wait_until(lambda: diarize.records.newest(State.QUEUED))
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 1
    assert "run this again" in (tmp_path / "log").read_text()
    assert len(diarize.records.newest(State.QUEUED)) == 1


def test_what_makes_no_sense_is_told_in_a_line(redis: Redis, tmp_path: Path) -> None:
    turns = str(tmp_path / "turns")
    wrong = run_example("batch.py", write_list(tmp_path / "urls.txt", "ftp://a.example/b.wav"), turns, code=1)
    assert "line 3: scheme 'ftp'" in wrong.stderr
    assert "No such file" in run_example("batch.py", str(tmp_path / "missing.txt"), turns, code=1).stderr
    twice = write_list(tmp_path / "urls.txt", "http://a.example/b.wav", "http://a.example/b.wav")
    assert "written to one file" in run_example("batch.py", twice, turns, code=1).stderr
    one = write_list(tmp_path / "urls.txt", "http://a.example/b.wav")
    down = run_example("batch.py", one, turns, code=1, REDIS_URL="redis://127.0.0.1:9/0")
    assert "Redis cannot be used" in down.stderr
    assert run_example("batch.py", write_list(tmp_path / "urls.txt"), turns).returncode == 0
