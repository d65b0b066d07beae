"""Memory: what a recording needs, and what is left of the machine and of the cgroups."""

from __future__ import annotations

from pathlib import Path

import pytest

from diarization.memory import BASE_BYTES, BYTES_PER_AUDIO_HOUR, available_bytes, needed_bytes

MEMINFO = (
    "MemTotal:       24000000 kB\nMemFree:         1000000 kB\nMemAvailable:    8000000 kB\nHugePages_Total:       0\n"
)
MACHINE = 8_000_000 * 1024
MB = 1_000_000


class Machine:
    """A procfs and a cgroup tree of files."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.cgroups = folder / "proc", folder / "cgroup"
        self.write("proc/meminfo", MEMINFO)

    def write(self, path: str, text: str) -> None:
        file = self.proc.parent / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    @property
    def available(self) -> int:
        return available_bytes(self.proc, self.cgroups)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_need_is_a_line() -> None:
    assert needed_bytes(0) == BASE_BYTES
    assert needed_bytes(3600) == BASE_BYTES + BYTES_PER_AUDIO_HOUR
    assert needed_bytes(10 * 3600) == BASE_BYTES + 10 * BYTES_PER_AUDIO_HOUR


def test_ten_hours_fit_a_machine_of_8_gib() -> None:
    assert needed_bytes(10 * 3600) < 6 * 1024**3


def test_without_a_cgroup_the_machine_decides(machine: Machine) -> None:
    assert machine.available == MACHINE


def test_a_machine_that_says_nothing_has_no_bound(tmp_path: Path) -> None:
    assert available_bytes(tmp_path, tmp_path) == 2**60


def test_this_machine_says_something() -> None:
    assert 0 < available_bytes() < 2**60


def test_page_cache_of_a_cgroup_counts_as_free(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "0::/\n")
    machine.write("cgroup/memory.max", f"{1000 * MB}\n")
    machine.write("cgroup/memory.current", f"{900 * MB}\n")
    machine.write("cgroup/memory.stat", f"anon {400 * MB}\ninactive_file {200 * MB}\nactive_file {50 * MB}\n")

    assert machine.available == 350 * MB


def test_a_group_is_bound_by_those_it_is_in(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "0::/system.slice/worker.service\n")
    machine.write("cgroup/system.slice/worker.service/memory.max", "max\n")
    machine.write("cgroup/system.slice/worker.service/memory.current", f"{10 * MB}\n")
    machine.write("cgroup/system.slice/memory.max", f"{500 * MB}\n")
    machine.write("cgroup/system.slice/memory.current", f"{100 * MB}\n")

    assert machine.available == 400 * MB


@pytest.mark.parametrize("path", ["/", "/docker/0123abcd"])
def test_version_1_is_read_at_the_root_where_its_path_is_the_hosts(machine: Machine, path: str) -> None:
    machine.write("proc/self/cgroup", f"5:devices:{path}\n4:cpu,memory:{path}\n0::/\n")
    machine.write("cgroup/memory/memory.limit_in_bytes", f"{700 * MB}\n")
    machine.write("cgroup/memory/memory.usage_in_bytes", f"{600 * MB}\n")
    machine.write("cgroup/memory/memory.stat", f"inactive_file 1\ntotal_inactive_file {30 * MB}\n")

    assert machine.available == 130 * MB


def test_version_1_without_a_limit_leaves_it_to_the_machine(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "4:memory:/\n")
    machine.write("cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    machine.write("cgroup/memory/memory.usage_in_bytes", f"{600 * MB}\n")

    assert machine.available == MACHINE


def test_a_group_over_its_limit_has_nothing_left(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "0::/\n")
    machine.write("cgroup/memory.max", "100\n")
    machine.write("cgroup/memory.current", "200\n")

    assert machine.available == 0
