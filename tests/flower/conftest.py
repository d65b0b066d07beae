"""A real Chromium for the tests of Flower's pages."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, sync_playwright

from tests.monitored import PASSWORD, USER

FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]

Visit = Callable[..., Page]


@pytest.fixture
def visit(tmp_path: Path) -> Iterator[Visit]:
    """Opens a page in a browser of its own; `visit(url, password=None)` without logging in."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium here: apt-get install chromium")
    contexts: list[BrowserContext] = []
    with sync_playwright() as playwright:

        def open_page(url: str, *, password: str | None = PASSWORD) -> Page:
            context = playwright.chromium.launch_persistent_context(
                tmp_path / f"profile{len(contexts)}",
                executable_path=chromium,
                args=FLAGS,
                http_credentials={"username": USER, "password": password} if password else None,
                viewport={"width": 1760, "height": 600},
            )
            contexts.append(context)
            page = context.pages[0]
            page.goto(url)
            return page

        yield open_page
        for context in contexts:
            context.close()
