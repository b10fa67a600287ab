"""The page in Chromium: no errors, no network, sorting, filters, links, and a phone's width."""

from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser

from tests.browser import browser, needs_chromium, open_page, run_script
from tests.report.evaluations import data_of, saved_of
from yolo_cli.progress import Silent
from yolo_cli.report.write import write_report

__all__ = ["browser"]  # a fixture

NAMES = ("<script>alert(1)</script>", "cat \"'>", "שלום", *(f"class {i}" for i in range(20)))

pytestmark = [pytest.mark.slow, needs_chromium]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of random boxes, many of them found, with a base."""
    folder = tmp_path_factory.mktemp("report")
    random = np.random.default_rng(0)
    truth, found = [], []
    for image in range(70):
        for x, y in random.uniform(0, [150, 60], (int(random.integers(1, 8)), 2)).tolist():
            class_id, box = int(random.integers(len(NAMES))), (x, y, 40.0, 30.0)
            truth.append((image, class_id, box))
            moved = (x + float(random.choice([0, 20])), y, 40.0, 30.0)
            found.append((image, int(random.choice([class_id, 0, 5])), moved, float(random.uniform(0.05, 1))))
    saved = saved_of(data_of(truth, found, 70), NAMES, folder / "images")
    base = saved_of(data_of(truth, found[::2], 70), NAMES, folder / "images")
    (folder / "run").mkdir()
    return write_report(folder / "run", saved, base=base, base_name="base", resamples=100, reporter=Silent())


def test_it_loads_without_errors_and_without_network(report: Path, browser: Browser, tmp_path: Path) -> None:
    opened = open_page(browser, report)
    assert opened.console == []
    assert "images in this report are shown." in opened.page.locator("#shown").inner_text()
    assert [url for url in opened.requests if not url.startswith("data:")] == [report.as_uri()]
    # The same check sees a request if there is one.
    other = tmp_path / "other.html"
    other.write_text("<!DOCTYPE html><img src='http://example.invalid/x.png'>")
    assert "http://example.invalid/x.png" in open_page(browser, other).requests


def test_a_script_from_elsewhere_does_not_run(report: Path, browser: Browser, tmp_path: Path) -> None:
    """The policy in the page stops scripts even if a name were not escaped."""
    copy = tmp_path / "injected.html"
    injected = "<script>document.title = 'ran'</script><img src='x' onerror=\"document.title = 'ran'\"></body>"
    copy.write_text(report.read_text(encoding="utf-8").replace("</body>", injected), encoding="utf-8")
    opened = open_page(browser, copy)
    assert opened.page.title() != "ran"
    assert any("Content Security Policy" in line for line in opened.console)


def test_sorting(report: Path, browser: Browser) -> None:
    script = """
        const table = document.getElementById('class-table'), header = table.tHead.rows[0].cells;
        const column = (i) => Array.from(table.tBodies[0].rows, (row) =>
          row.cells[i].dataset.v ?? row.cells[i].textContent);
        const press = (i) => header[i].querySelector('button').click();
        press(1); result.down = column(1).map(Number); result.sort = header[1].getAttribute('aria-sort');
        press(1); result.up = column(1).map(Number); result.again = header[1].getAttribute('aria-sort');
        press(3); result.ap = column(3).map(Number); result.other = header[1].getAttribute('aria-sort');
        press(0); result.names = column(0);
        press(6); result.best = column(6);
    """
    result = run_script(browser, report, script)
    assert result["down"] == sorted(result["down"], reverse=True)
    assert result["up"] == sorted(result["down"])
    assert (result["sort"], result["again"], result["other"]) == ("descending", "ascending", None)
    assert result["ap"] == sorted(result["ap"], reverse=True)
    assert result["names"] == sorted(result["names"], key=str.lower)
    known = [value for value in result["best"] if value]
    assert result["best"] == sorted(known, key=float, reverse=True) + [""] * (len(result["best"]) - len(known))


def test_filters_and_the_links_that_set_them(report: Path, browser: Browser) -> None:
    script = """
        const cards = Array.from(document.querySelectorAll('#cards > li'));
        const drawn = (all) => Array.from(all).filter((element) => element.getClientRects().length);
        const visible = () => drawn(cards).map((card) => card.dataset.tags.split(' '));
        const status = () => document.getElementById('shown').textContent;
        result.all = cards.length; result.worst = visible(); result.text = status();
        result.links = Array.from(document.querySelectorAll('a[data-open]'), (link) => {
          link.click();
          return [link.dataset.open, visible(), status()];
        });
        document.getElementById('reset').click(); result.reset = visible().length;
        const missed = document.getElementById('by-error');
        missed.value = 'e-missed'; missed.dispatchEvent(new Event('change')); result.missed = visible();
        const box = document.getElementById('with-truth');
        const truth = () => drawn(document.querySelectorAll('#cards .o-truth')).length;
        result.before = truth(); box.click(); result.after = truth();
        const field = document.querySelector('input[data-table]');
        field.value = 'CLASS 1'; field.dispatchEvent(new Event('input'));
        result.rows = Array.from(document.getElementById('class-table').tBodies[0].rows).filter((row) => !row.hidden)
          .map((row) => row.cells[0].textContent);
    """
    result = run_script(browser, report, script)
    assert len(result["worst"]) == 50
    assert all("worst" in tags for tags in result["worst"])
    assert result["text"] == f"50 of the {result['all']} images in this report are shown."
    assert len(result["links"]) > 30
    for wanted, shown, text in result["links"]:
        of_class, error, group = wanted.split("|")
        tag = f"{of_class}-{error}" if of_class and error else of_class or error or group or "worst"
        assert shown, wanted
        assert all(tag in tags for tags in shown)
        assert text.startswith(f"{len(shown)} of the ")
    assert result["reset"] == 50
    assert result["missed"]
    assert all("e-missed" in tags for tags in result["missed"])
    assert result["before"] > 0
    assert result["after"] == 0
    assert result["rows"]
    assert all(name.startswith("class 1") for name in result["rows"])


def test_every_link_leads_somewhere_that_is_visible(report: Path, browser: Browser) -> None:
    script = """
        result.hidden = [];
        const links = Array.from(document.querySelectorAll('a[href^="#"]'));
        for (const link of links) {
          location.hash = link.hash;
          dispatchEvent(new HashChangeEvent('hashchange'));
          const target = document.getElementById(link.hash.slice(1));
          if (!target || !target.getClientRects().length) result.hidden.push(link.hash);
        }
        result.count = links.length;
    """
    result = run_script(browser, report, script)
    assert result["count"] > 40
    assert result["hidden"] == []


def test_it_fits_a_phone_and_every_control_has_a_name(report: Path, browser: Browser) -> None:
    page = open_page(browser, report, width=390).page
    found = page.evaluate("""() => {
        const root = document.documentElement;
        const unnamed = (e) => !(e.textContent.trim() || e.getAttribute('aria-label') || (e.labels && e.labels.length));
        return {
          overflow: root.scrollWidth - root.clientWidth,
          unnamed: Array.from(document.querySelectorAll('button, select, input, a[href]')).filter(unnamed).length,
          outside: Array.from(document.querySelectorAll('.scroll')).filter((e) => e.tabIndex !== 0).length,
        };
    }""")
    assert found == {"overflow": 0, "unnamed": 0, "outside": 0}


def test_it_works_with_the_keyboard_alone(report: Path, browser: Browser) -> None:
    page = open_page(browser, report).page
    header = page.locator("#class-table th").nth(1)
    for _ in range(100):
        page.keyboard.press("Tab")
        if header.locator("button").evaluate("(button) => button === document.activeElement"):
            break
    page.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "descending"
    page.keyboard.press("Space")
    assert header.get_attribute("aria-sort") == "ascending"
    page.locator("#by-error").focus()
    before = page.locator("#shown").inner_text()
    page.keyboard.press("ArrowDown")
    assert page.locator("#shown").inner_text() != before
