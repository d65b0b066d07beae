"""Which packages are listed as third parties', under which licence, and which licences are refused."""

from __future__ import annotations

import tomllib
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest

from docs.generators.notices import LicenceUnclear, licence_of, packages_table, shipped
from tests.processes import ROOT

LOCK = """
[[package]]
name = "diarize-queue"
dependencies = [{{ name = "celery", extra = ["redis"] }}]
[package.optional-dependencies]
worker = [{{ name = "torch" }}]
flower = [{{ name = "redis" }}, {{ name = "absent" }}]
[package.dev-dependencies]
dev = [{{ name = "pytest" }}]
[[package]]
name = "celery"
version = "5"
[package.optional-dependencies]
redis = [{{ name = "redis" }}]
[[package]]
name = "redis"
version = "8"
[[package]]
name = "torch"
version = "2"
dependencies = [{{ name = "{of_torch}" }}]
[[package]]
name = "{of_torch}"
version = "1"
[[package]]
name = "absent"
version = "3"
"""
OLD_ROW = "| [absent](https://example.org) | 3 | MIT | flower |"


class Package(Distribution):
    """One that says of itself what a test has it say."""

    def __init__(self, metadata: str) -> None:
        self._metadata = f"Metadata-Version: 2.4\nName: {metadata}"

    def read_text(self, filename: str) -> str | None:
        return self._metadata if filename == "METADATA" else None

    def locate_file(self, path: object) -> Path:  # type: ignore[override]
        raise NotImplementedError


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "uv.lock"
    path.write_text(LOCK.format(of_torch="numpy"))
    return path


def test_each_package_is_named_with_what_brings_it() -> None:
    expected = {"celery": ["base"], "redis": ["base"], "torch": ["worker"], "numpy": ["worker"], "absent": ["flower"]}
    assert shipped(tomllib.loads(LOCK.format(of_torch="numpy"))) == expected


def test_a_row_says_version_and_licence(lock: Path) -> None:
    assert f"| {distribution('torch').version} | BSD-3-Clause | worker |" in packages_table(lock, "")


def test_what_is_not_installed_here_keeps_its_row_while_it_is_pinned(lock: Path) -> None:
    assert OLD_ROW in packages_table(lock, OLD_ROW)
    assert OLD_ROW not in packages_table(lock, OLD_ROW.replace("| 3 |", "| 2 |"))


def test_packages_of_the_developers_are_not_listed() -> None:
    lock = ROOT / "uv.lock"
    assert "[pytest]" not in packages_table(lock, "")


@pytest.mark.parametrize(
    ("metadata", "licence"),
    [
        ("a\nLicense-Expression: MIT OR Apache-2.0", "MIT OR Apache-2.0"),
        ("b\nLicense: MIT License", "MIT"),
        ("c\nLicense: UNKNOWN\nClassifier: License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)", "MPL-2.0"),
        ("uvloop\nLicense: whatever", "Apache-2.0 OR MIT"),
    ],
)
def test_a_licence_as_the_metadata_says_it(metadata: str, licence: str) -> None:
    assert licence_of(Package(metadata)) == licence


def test_a_licence_that_cannot_be_told_is_an_error() -> None:
    with pytest.raises(LicenceUnclear, match="the licence of d 1 cannot be told"):
        licence_of(Package("d\nVersion: 1\nLicense: see website"))


def test_a_licence_that_is_not_allowed_is_an_error(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("docs.generators.notices.LOOKED_UP", {"numpy": "MIT AND GPL-3.0-only"})
    with pytest.raises(LicenceUnclear, match=r"numpy .*GPL-3.0-only"):
        packages_table(lock, "")
