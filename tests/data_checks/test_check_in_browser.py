"""check.html in Chromium: no errors, no request, hostile names as text, readable on a phone, jumps to the places."""

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.browser import browser, needs_chromium, open_page
from tests.data_checks.conftest import Dataset, photo

__all__ = ["browser"]  # a fixture

pytestmark = [pytest.mark.slow, needs_chromium]


@pytest.fixture
def page(dataset: Dataset, tmp_path: Path) -> Path:
    shutil.copy(dataset.image("train", "3.jpg"), dataset.image("val", "other.jpg"))
    dataset.add("val", "<img src=x onerror=alert(1)>.jpg", photo(5), ("0 0.5 0.5 1 1", "7 0.5 0.5 0.1 0.1"))
    dataset.image("train", "7.jpg").write_bytes(b"")
    dataset.check(html=True, project=str(tmp_path / "runs"))
    return tmp_path / "runs/check/check.html"


def test_it_loads_without_errors_and_without_network(page: Path, browser: Browser) -> None:
    opened = open_page(browser, page)
    assert opened.console == []
    assert [url for url in opened.requests if not url.startswith("data:")] == [page.as_uri()]
    assert "<img src=x onerror=alert(1)>.jpg" in opened.page.inner_text("body")
    assert opened.page.locator("img[src='x']").count() == 0


def test_every_thumbnail_is_drawn(page: Path, browser: Browser) -> None:
    opened = open_page(browser, page)
    pictures = opened.page.locator("svg.picture")
    assert pictures.count() == 5  # two leaks with two images each, and a box that covers its image
    for i in range(pictures.count()):
        pictures.nth(i).scroll_into_view_if_needed()
        box = pictures.nth(i).bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) > 30


def test_links_lead_to_sections_that_exist(page: Path, browser: Browser) -> None:
    opened = open_page(browser, page)
    targets = opened.page.eval_on_selector_all(
        "a[href^='#']", "links => links.map(a => a.getAttribute('href').slice(1))"
    )
    assert all(opened.page.locator(f"[id='{target}']").count() == 1 for target in targets)


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_screen(page: Path, browser: Browser, width: int) -> None:
    opened = open_page(browser, page, width)
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
