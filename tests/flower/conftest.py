"""A real Chromium for the tests of Flower's pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.browser import Visit, chromium
from tests.monitored import PASSWORD, USER


@pytest.fixture
def visit(tmp_path: Path) -> Iterator[Visit]:
    """Opens a page in a browser of its own; `visit(url, password=None)` without logging in."""
    with chromium(tmp_path) as open_page:

        def visit(url: str, *, password: str | None = PASSWORD) -> Page:
            credentials = {"username": USER, "password": password} if password else None
            return open_page(url, http_credentials=credentials, viewport={"width": 1760, "height": 600})

        yield visit
