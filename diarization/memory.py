"""What a recording of a given length needs of this machine's memory, and how much of it is there.

Host memory alone: on a GPU the networks' working memory is the GPU's, and does not grow with the recording. The figures
are a line, base plus bytes an hour, because nothing here grows faster than the recording does.
"""

from __future__ import annotations

import math
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Final

# `make bench-memory` on a CPU: 0.1 GB + 290 MB an hour, and 0.3 GB for three minutes, of which most are the networks'.
# These are bounds with a margin. An hour of samples alone is 230 MB.
BASE_BYTES: Final = 500_000_000
BYTES_PER_AUDIO_HOUR: Final = 330_000_000

_UNLIMITED_BYTES: Final = 2**60  # cgroup v1 writes the largest multiple of a page where there is no limit


def needed_bytes(audio_seconds: float) -> int:
    """What a job takes beyond what its worker holds with the model loaded, at its peak.

    Args:
        audio_seconds: Length of the recording, as decoded.
    """
    return BASE_BYTES + math.ceil(BYTES_PER_AUDIO_HOUR * audio_seconds / 3600)


def available_bytes(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """What this process can still take: of the machine's memory, and of each cgroup's that it is in.

    Page cache that the kernel would give up counts as free, as it does in the kernel's own `MemAvailable`. A machine
    that says neither (no Linux) has no bound that we know of, and 2**60 comes back.

    Args:
        proc: Where procfs is mounted.
        cgroups: Where the cgroup hierarchies are mounted.
    """
    return max(0, min(_machine_bytes(proc / "meminfo"), *_group_bytes(proc / "self" / "cgroup", cgroups)))


def _machine_bytes(meminfo: Path) -> int:
    fields = _fields(meminfo)
    return fields["MemAvailable"] * 1024 if "MemAvailable" in fields else _UNLIMITED_BYTES


def _group_bytes(membership: Path, cgroups: Path) -> Iterator[int]:
    """What is left in each cgroup that bounds this process, version 2 and version 1."""
    yield _UNLIMITED_BYTES
    for line in _text(membership).splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            yield from _left(cgroups, path, "memory.max", "memory.current", "inactive_file", "active_file")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", "total_active_file")
            yield from _left(cgroups / "memory", path, *names)


def _left(root: Path, path: str, limit: str, usage: str, *reclaimable: str) -> Iterator[int]:
    """Limit minus usage of the group and of those it is in.

    In a container the path may be the host's, of which nothing but the root is mounted: folders that do not exist are
    passed over.
    """
    group = root / path.strip("/")
    for folder in (group, *(parent for parent in group.parents if parent.is_relative_to(root))):
        bound, used = _text(folder / limit).strip(), _text(folder / usage).strip()
        if not bound.isdigit() or not used.isdigit():  # "max", or no such file
            continue
        fields = _fields(folder / "memory.stat")
        yield int(bound) - int(used) + sum(fields.get(name, 0) for name in reclaimable)


def _fields(path: Path) -> dict[str, int]:
    """Lines of a name and a whole number, as in meminfo and memory.stat."""
    rows = (line.replace(":", " ").split() for line in _text(path).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}


def _text(path: Path) -> str:
    """The file's text; none where it cannot be read."""
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def resident_bytes(pid: int | None = None, proc: Path = Path("/proc")) -> int:
    """What a process, this one where none is named, holds of the machine's memory now; 0 where that is not known."""
    pages = _text(proc / str(pid or "self") / "statm").split()
    return int(pages[1]) * resource.getpagesize() if len(pages) > 1 else 0
