"""A real Chromium for tests; without one they are skipped."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, sync_playwright

FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]

Visit = Callable[..., Page]


@contextmanager
def chromium(folder: Path, on_error: Callable[[Any], object] = lambda _: None) -> Iterator[Visit]:
    """Opens a page in a browser of its own, with options of Playwright's context: `visit(url, color_scheme="dark")`.

    `folder` keeps the browsers' profiles; `on_error` hears of what a page's script raises.
    """
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no chromium here: apt-get install chromium")
    contexts: list[BrowserContext] = []
    with sync_playwright() as playwright:

        def visit(url: str, **options: Any) -> Page:
            context = playwright.chromium.launch_persistent_context(
                folder / f"profile{len(contexts)}", executable_path=program, args=FLAGS, **options
            )
            contexts.append(context)
            page = context.pages[0]
            page.on("pageerror", lambda error: on_error(error))  # Playwright takes no method of a list
            page.goto(url)
            return page

        yield visit
        for context in contexts:
            context.close()
