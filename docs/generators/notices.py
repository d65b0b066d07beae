"""The packages that an installation brings along, with their licences: the table in THIRD_PARTY_NOTICES.md.

What they are is read from uv.lock, their licences from their own metadata, where they are installed. A licence that is
not in `ALLOWED` is an error: it must be looked at before the package may stay.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "diarize-queue"
BASE = "base"

PERMISSIVE = frozenset(
    (
        *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "ISC", "MIT", "MIT-0", "MIT-CMU"),
        *("PSF-2.0", "Python-2.0", "Unlicense", "Zlib"),
    )
)
WEAK_COPYLEFT = frozenset(("LGPL-2.1", "MPL-2.0"))
"""Theirs alone: a change of such a package must be given away, what only uses it need not."""
NVIDIA = "LicenseRef-NVIDIA-Proprietary"
ALLOWED = PERMISSIVE | WEAK_COPYLEFT | {NVIDIA}

LOOKED_UP: Mapping[str, str] = {
    "cuda-toolkit": NVIDIA,
    "nvidia-cusparselt-cu13": NVIDIA,
    "primepy": "MIT",
    "protobuf": "BSD-3-Clause",
    "python-dateutil": "Apache-2.0 OR BSD-3-Clause",
    "uvloop": "Apache-2.0 OR MIT",
}
"""Where the metadata says nothing, or nothing that a program could read."""

_SAID: Mapping[str, str] = {
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "isc license (iscl)": "ISC",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "new bsd": "BSD-3-Clause",
    "bsd 3-clause license": "BSD-3-Clause",
    "python software foundation license": "PSF-2.0",
    "the unlicense (unlicense)": "Unlicense",
}
"""Names of licences as metadata has them, in lower case, and the SPDX identifiers they stand for."""

_HOMES = ("homepage", "source", "source code", "repository", "documentation")
_ROW = re.compile(r"^\| \[?(?P<name>[\w.-]+)\]?(\(\S+\))? \| (?P<version>\S+) \|.*$", re.MULTILINE)


class LicenceUnclear(Exception):
    """Somebody must look at a package's licence. The message says which, and where to note it."""


def packages() -> str:
    """The table of this project, as `packages_table` makes it from the one there is."""
    return packages_table(ROOT / "uv.lock", (ROOT / "THIRD_PARTY_NOTICES.md").read_text())


def packages_table(lock: Path, before: str) -> str:
    """A row for each package that uv.lock pins for users, as far as some platform has had it installed.

    Args:
        lock: uv.lock.
        before: The table as it was: its rows stay for what is pinned as it was and is not installed on this platform.

    Raises:
        LicenceUnclear: That of one is unknown, or not allowed.
    """
    pinned = tomllib.loads(lock.read_text())
    versions = {package["name"]: package.get("version") for package in pinned["package"]}
    installed = {_normal(found.name): found for found in distributions()}
    old = {_normal(row["name"]): row for row in _ROW.finditer(before)}
    rows = ["| package | version | licence | comes with |", "|---|---|---|---|"]
    for name, extras in sorted(shipped(pinned).items()):
        if (found := installed.get(name)) is None:
            if name in old and old[name]["version"] == versions[name]:
                rows.append(old[name][0])
            continue
        licence = licence_of(found)
        if refused := set(re.split(r" AND | OR ", licence)) - ALLOWED:
            raise LicenceUnclear(f"{name} {found.version}: nobody has allowed {', '.join(sorted(refused))} in ALLOWED")
        rows.append(f"| {_linked(found)} | {found.version} | {licence} | {', '.join(extras)} |")
    return "\n".join(rows)


def shipped(lock: Mapping[str, Any]) -> dict[str, list[str]]:
    """By the packages of a uv.lock that users get: the extras that bring them, or `BASE` where all installations do."""
    packages = {package["name"]: package for package in lock["package"]}
    project = packages[PROJECT]
    base = _closure(packages, project["dependencies"])
    extras = {extra: _closure(packages, needs) for extra, needs in project["optional-dependencies"].items()}
    names = base.union(*extras.values())
    return {name: [BASE] if name in base else [extra for extra in extras if name in extras[extra]] for name in names}


def licence_of(package: Distribution) -> str:
    """The SPDX expression of its licence.

    Raises:
        LicenceUnclear: It cannot be told.
    """
    name, metadata = _normal(package.name), package.metadata.json
    if name in LOOKED_UP:
        return LOOKED_UP[name]
    if expression := metadata.get("license_expression"):
        return str(expression)
    classifiers = [line.rpartition(" :: ")[2] for line in metadata.get("classifier", []) if "License ::" in line]
    for said in (*(str(metadata.get("license", "")).splitlines()[:1]), *classifiers):
        if said in ALLOWED or (known := _SAID.get(said.lower())):
            return said if said in ALLOWED else str(known)
    if text := _licence_text(package):
        if "Neither the name" in text:
            return "BSD-3-Clause"
        if "Permission is hereby granted, free of charge" in text:
            return "MIT"
        if "Redistributions of source code must retain" in text:
            return "BSD-2-Clause"
    raise LicenceUnclear(f"the licence of {name} {package.version} cannot be told: look it up, for LOOKED_UP")


def _closure(packages: Mapping[str, Any], needs: Iterable[Mapping[str, Any]]) -> set[str]:
    found: set[str] = set()
    open_ends = [(need["name"], extra) for need in needs for extra in ("", *need.get("extra", ()))]
    seen: set[tuple[str, str]] = set()
    while open_ends:
        name, extra = end = open_ends.pop()
        if end in seen:
            continue
        seen.add(end)
        found.add(name)
        package = packages[name]
        more = package.get("optional-dependencies", {}).get(extra, []) if extra else package.get("dependencies", [])
        open_ends += [(need["name"], extra) for need in more for extra in ("", *need.get("extra", ()))]
    return found


def _licence_text(package: Distribution) -> str:
    for path in package.files or ():
        if re.search(r"dist-info/(licenses/)?(LICEN[CS]E|COPYING)[^/]*$", str(path), re.IGNORECASE):
            # It wraps lines where it likes.
            return " ".join(path.read_text().split())
    return ""


def _linked(package: Distribution) -> str:
    metadata = package.metadata.json
    urls = {
        label.strip().lower(): address.strip()
        for label, _, address in (line.partition(",") for line in metadata.get("project_url", []))
    }
    home = metadata.get("home_page") or next((urls[label] for label in _HOMES if label in urls), None)
    return f"[{package.name}]({home})" if home else package.name


def _normal(name: str) -> str:
    """As uv.lock writes names (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
