"""Which code this is, so that a fleet can notice that it runs two versions."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from pathlib import Path

from diarization import __version__

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("diarization", "tasks")


@cache
def code_version() -> str:
    """The package's version and a fingerprint of its files, as `0.1.0 (3fa9c1d2)`.

    Deploys from a checkout differ without a new number; the fingerprint tells them apart.
    """
    digest = sha256()
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*")):
            # A wheel has celeryconfig.py in the package, a checkout beside it: both are the same code.
            if path.suffix in (".py", ".lua") and path.name != "celeryconfig.py":
                digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return f"{__version__} ({digest.hexdigest()[:8]})"
