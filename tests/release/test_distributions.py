"""What is in the wheel and in the sdist, and what an index shows of them."""

from __future__ import annotations

import subprocess
import tarfile
import zipfile
from email import message_from_string
from email.message import Message
from pathlib import Path

import pytest

from tests.processes import ROOT
from tests.release.conftest import Distributions, uv


@pytest.fixture
def metadata(distributions: Distributions) -> Message:
    with zipfile.ZipFile(distributions.wheel) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_string(wheel.read(name).decode())


def test_the_wheel_holds_the_code_and_nothing_else(distributions: Distributions) -> None:
    with zipfile.ZipFile(distributions.wheel) as wheel:
        names = [name for name in wheel.namelist() if ".dist-info/" not in name]
    assert {name.partition("/")[0] for name in names} == {"diarization", "tasks", "runpod_worker"}
    assert {"diarization/py.typed", "tasks/py.typed", "tasks/celeryconfig.py", "tasks/scripts/take.lua"} <= set(names)
    assert distributions.wheel.stat().st_size < 1_000_000


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this tree is an sdist itself")
def test_the_sdist_is_the_source_tree(distributions: Distributions) -> None:
    """With tests, model and recordings, so that whoever packages it anew can test it."""
    with tarfile.open(distributions.sdist) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    assert names - {"PKG-INFO"} == {name for name in listed if (ROOT / name).is_file()}


def test_the_wheel_is_the_same_by_way_of_the_sdist_and_without(distributions: Distributions, tmp_path: Path) -> None:
    uv("build", "--wheel", "--out-dir", tmp_path, ROOT)
    assert (tmp_path / distributions.wheel.name).read_bytes() == distributions.wheel.read_bytes()


def test_what_an_index_wants_of_both(distributions: Distributions) -> None:
    uv("tool", "run", "twine==6.2.0", "check", "--strict", distributions.wheel, distributions.sdist)


def test_the_licences_travel_with_the_wheel(metadata: Message) -> None:
    assert metadata["License-Expression"] == "MIT"
    assert set(metadata.get_all("License-File", [])) == {"LICENSE", "THIRD_PARTY_NOTICES.md"}
