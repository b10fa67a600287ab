"""The page in Chromium: no errors, no network, sorting, filters, links, and a phone's width."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.report.evaluations import data_of, saved_of
from yolo_cli.progress import Silent
from yolo_cli.report.write import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync --disable-extensions --disable-ipc-flooding-protection "
    "--virtual-time-budget=3000 --enable-logging=stderr"
)
NAMES = ("<script>alert(1)</script>", "cat \"'>", "שלום", *(f"class {i}" for i in range(20)))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed"),
]


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


def browse(page: Path, folder: Path, *options: str) -> tuple[str, list[str]]:
    """The page's elements after its scripts ran, and the lines of the console."""
    profile = folder / "profile"
    offline = "--host-resolver-rules=MAP * ~NOTFOUND"
    command = [
        str(CHROMIUM),
        *OPTIONS.split(),
        offline,
        f"--user-data-dir={profile}",
        *options,
        "--dump-dom",
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def run_script(page: Path, script: str, folder: Path) -> dict:
    """What a script that runs after those of the page leaves in `result`. The page's policy would not let it run."""
    text = re.sub(r"script-src '[^']*'", "script-src 'unsafe-inline'", page.read_text(encoding="utf-8"))
    wrapped = (
        "<script>const result = {errors: []}; addEventListener('error', (e) => result.errors.push(e.message));"
        f"{script}; document.body.dataset.result = JSON.stringify(result);</script></body>"
    )
    copy = folder / "with_script.html"
    copy.write_text(text.replace("</body>", wrapped), encoding="utf-8")
    dom, console = browse(copy, folder)
    match = re.search(r'<body[^>]*data-result="([^"]*)"', dom)
    assert match, console
    result = json.loads(html.unescape(match.group(1)))
    assert result.pop("errors") == []
    assert console == []
    return result


def test_it_loads_without_errors_and_without_network(report: Path, tmp_path: Path) -> None:
    log = tmp_path / "net.json"
    dom, console = browse(report, tmp_path, f"--log-net-log={log}")
    assert console == []
    assert "images in this report are shown." in dom
    assert requests_of_the_page(log) == []
    # The same check sees a request if there is one.
    other = tmp_path / "other.html"
    other.write_text("<!DOCTYPE html><img src='http://example.invalid/x.png'>")
    browse(other, tmp_path, f"--log-net-log={log}")
    assert requests_of_the_page(log) == ["http://example.invalid/x.png"]


def requests_of_the_page(log: Path) -> list[str]:
    """What a page asked for over the network; the browser's own requests have no origin."""
    asked = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    rows = [(str(params["url"]), params.get("initiator")) for params in asked if "url" in params]
    return sorted({url for url, origin in rows if url.startswith("http") and origin not in (None, "not an origin")})


def test_a_script_from_elsewhere_does_not_run(report: Path, tmp_path: Path) -> None:
    """The policy in the page stops scripts even if a name were not escaped."""
    copy = tmp_path / "injected.html"
    injected = "<script>document.title = 'ran'</script><img src='x' onerror=\"document.title = 'ran'\"></body>"
    copy.write_text(report.read_text(encoding="utf-8").replace("</body>", injected), encoding="utf-8")
    dom, console = browse(copy, tmp_path)
    assert "<title>ran</title>" not in dom
    assert any("Content Security Policy" in line for line in console)


def test_sorting(report: Path, tmp_path: Path) -> None:
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
    result = run_script(report, script, tmp_path)
    assert result["down"] == sorted(result["down"], reverse=True)
    assert result["up"] == sorted(result["down"])
    assert (result["sort"], result["again"], result["other"]) == ("descending", "ascending", None)
    assert result["ap"] == sorted(result["ap"], reverse=True)
    assert result["names"] == sorted(result["names"], key=str.lower)
    known = [value for value in result["best"] if value]
    assert result["best"] == sorted(known, key=float, reverse=True) + [""] * (len(result["best"]) - len(known))


def test_filters_and_the_links_that_set_them(report: Path, tmp_path: Path) -> None:
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
    result = run_script(report, script, tmp_path)
    assert len(result["worst"]) == 50
    assert all("worst" in tags for tags in result["worst"])
    assert result["text"] == f"50 of the {result['all']} images in this report are shown."
    assert len(result["links"]) > 30
    for wanted, shown, text in result["links"]:
        of_class, error, group = wanted.split("|")
        tag = f"{of_class}-{error}" if of_class and error else of_class or error or group
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


def test_every_link_leads_somewhere_that_is_visible(report: Path, tmp_path: Path) -> None:
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
    result = run_script(report, script, tmp_path)
    assert result["count"] > 40
    assert result["hidden"] == []


def test_it_fits_a_phone_and_works_with_a_keyboard(report: Path, tmp_path: Path) -> None:
    text = re.sub(r"script-src '[^']*'", "script-src 'unsafe-inline'", report.read_text(encoding="utf-8"))
    frame = f'<iframe style="width: 390px; height: 800px" srcdoc="{html.escape(text)}"></iframe>'
    script = """<script>addEventListener('load', () => {
        const page = document.querySelector('iframe').contentDocument, result = {};
        result.overflow = page.documentElement.scrollWidth - page.documentElement.clientWidth;
        const unnamed = (e) => !(e.textContent.trim() || e.getAttribute('aria-label') || (e.labels && e.labels.length));
        result.unnamed = Array.from(page.querySelectorAll('button, select, input, a[href]')).filter(unnamed).length;
        result.outside = Array.from(page.querySelectorAll('.scroll')).filter((e) => e.tabIndex !== 0).length;
        document.body.dataset.result = JSON.stringify(result);
    })</script>"""
    outer = tmp_path / "phone.html"
    outer.write_text(f"<!DOCTYPE html><meta charset=utf-8><body>{frame}{script}</body>", encoding="utf-8")
    dom, _ = browse(outer, tmp_path)
    match = re.search(r'<body[^>]*data-result="([^"]*)"', dom)
    assert match
    assert json.loads(html.unescape(match.group(1))) == {"overflow": 0, "unnamed": 0, "outside": 0}
