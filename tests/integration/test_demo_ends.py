"""However the demo ends, nothing of it is left; and the embedded server keeps what it says it keeps."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from redis import Redis

from tasks.valkey import EmbeddedValkey, EmbeddedValkeyError
from tests.processes import ROOT, wait_until


def start_demo(flags: Path, model: str, **settings: str) -> subprocess.Popen[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("REDIS_", "DIARIZATION_"))}
    standin = {"DIARIZATION_DIARIZER": "tests.standin:load", "DIARIZATION_MODEL": model, "STANDIN_DIR": str(flags)}
    return subprocess.Popen(
        [sys.executable, "-m", "tasks", "demo"],
        cwd=ROOT,
        env={**clean, **standin, "TMPDIR": str(flags), **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def descendants(pid: int) -> dict[int, str]:
    """Pids of all that a process has started, and of what they have, with their command lines."""
    found: dict[int, str] = {}
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return found
    for child in map(int, children):
        found |= {child: _command_line(child), **descendants(child)}
    return found


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_demos_that_run_at_once_and_are_stopped_leave_no_process(tmp_path: Path) -> None:
    ways = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 128 + signal.SIGTERM, signal.SIGINT: 130}
    with ExitStack() as stack:
        demos = {}
        for way in ways:
            (tmp_path / way.name).mkdir()
            demos[way] = stack.enter_context(start_demo(tmp_path / way.name, "wait/for-ever"))
        for way, demo in demos.items():
            started = _with_pool_child(demo.pid)
            assert [line for line in started.values() if "valkey-server" in line]
            demo.send_signal(way)
            out, err = demo.communicate(timeout=30)
            assert demo.returncode == ways[way], out + err
            assert "Traceback" not in err
            # A zombie that nobody reaps has no command line.
            wait_until(lambda pids=tuple(started): not [pid for pid in pids if _command_line(pid)], 15, "all ended")
            if way is not signal.SIGKILL:
                assert not list((tmp_path / way.name).glob("diarize-[dv]*")), "no folder is left"


def _with_pool_child(pid: int) -> dict[int, str]:
    """The descendants of a demo, once its worker makes a pool child."""
    wait_until(lambda: "spawn_main" in " ".join(descendants(pid).values()), 60, "a pool child is being made")
    return descendants(pid)


def test_a_worker_that_cannot_load_its_model_is_shown_and_a_redis_of_ones_own_left_clean(
    tmp_path: Path, server: EmbeddedValkey, redis: Redis
) -> None:
    with start_demo(tmp_path, "unavailable", REDIS_URL=server.url) as demo:
        out, err = demo.communicate(timeout=60)
    assert demo.returncode == 1
    assert "the one of REDIS_URL" in out
    assert "error: demo: the worker ended with exit code 78; it wrote last:" in err
    assert "the stand-in was told to be unavailable" in err
    assert "Traceback" not in out + err
    assert redis.keys("diarize-demo-*") == []


def test_without_a_server_at_redis_url_the_demo_says_so(tmp_path: Path) -> None:
    with start_demo(tmp_path, "any", REDIS_URL="redis://127.0.0.1:1/0") as demo:
        _, err = demo.communicate(timeout=60)
    assert demo.returncode == 3
    assert err.startswith("error: queue_unavailable: ")


def test_the_embedded_server_comes_back_with_what_it_kept() -> None:
    with EmbeddedValkey(persistent=True, arguments=("--maxmemory", "100mb")) as valkey:
        url = valkey.url
        with Redis.from_url(url) as client:
            client.set("kept", "yes")
            valkey.kill()
            valkey.start()
            assert valkey.url == url
            assert client.get("kept") == b"yes"
            assert client.config_get("maxmemory") == {"maxmemory": str(100 * 1024 * 1024)}
        process = valkey.process
    assert process.returncode == 0
    with pytest.raises(EmbeddedValkeyError, match="does not run"):
        _ = valkey.process


def test_a_port_that_is_taken_is_said_and_nothing_is_left(tmp_path: Path) -> None:
    with EmbeddedValkey() as valkey:
        port = int(valkey.url.rpartition(":")[2].partition("/")[0])
        second = EmbeddedValkey(tmp_path, port=port)
        with pytest.raises(EmbeddedValkeyError, match=f"did not start: .*{port}"):
            second.start()
        with pytest.raises(EmbeddedValkeyError, match="does not run"):
            _ = second.process
