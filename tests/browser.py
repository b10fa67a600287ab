"""Pages in a real browser: Chromium, driven by Playwright."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Opened:
    """A page, and what it printed on the console and asked for."""

    page: Page
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


def open_page(browser: Browser, file: Path, width: int = 1280) -> Opened:
    opened = Opened(browser.new_page(viewport={"width": width, "height": 800}))
    opened.page.on("console", lambda message: opened.console.append(message.text))
    opened.page.on("pageerror", lambda error: opened.console.append(str(error)))
    opened.page.on("request", lambda request: opened.requests.append(request.url))
    opened.page.goto(file.as_uri())
    return opened


def run_script(browser: Browser, file: Path, script: str) -> dict[str, Any]:
    """What a script leaves in `result`."""
    opened = open_page(browser, file)
    result: dict[str, Any] = opened.page.evaluate(f"() => {{ const result = {{}}; {script}; return result; }}")
    assert opened.console == []
    opened.page.close()
    return result
