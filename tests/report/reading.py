"""A report as a test reads it: its elements, links, ids and headings."""

import re
from html.parser import HTMLParser
from itertools import pairwise


class Page(HTMLParser):
    """All elements of a page with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._skipped = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag in ("script", "style"):
            self._skipped = tag

    def handle_endtag(self, tag: str) -> None:
        if tag == self._skipped:
            self._skipped = ""

    def handle_data(self, data: str) -> None:
        if not self._skipped:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def count(self, tag: str) -> int:
        return len(self.all(tag))

    def headings(self) -> list[int]:
        return [int(name[1]) for name, _ in self.elements if re.fullmatch(r"h[1-6]", name)]

    def ids(self) -> list[str]:
        return [attributes["id"] for _, attributes in self.elements if "id" in attributes]

    def references(self) -> list[str]:
        """Everything that a browser would open or load."""
        names = ("href", "src", "srcset", "action", "data", "poster", "xlink:href")
        return [attributes[name] for _, attributes in self.elements for name in names if name in attributes]


def check(html: str) -> Page:
    """What must hold for every report."""
    page = Page(html)
    ids = page.ids()
    assert len(ids) == len(set(ids))
    for reference in page.references():
        assert reference.startswith(("#", "data:image/jpeg;base64,")), reference[:100]
        assert not reference.startswith("#") or reference[1:] in ids, reference
    assert not re.search(r"url\(|@import|\bimport\(|fetch\(|XMLHttpRequest", html)
    headings = page.headings()
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(headings)), headings
    assert all(e.get("aria-label") for e in page.all("svg") if e.get("class") == "picture")
    assert len(html.encode()) <= 5_000_000
    for table in re.findall(r"<table.*?</table>", html, re.DOTALL):
        assert 'scope="col"' in table
    return page
