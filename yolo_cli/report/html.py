"""What all HTML pages share: templates, style, script, and pictures that fit into a limit of bytes."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from yolo_cli.report import text
from yolo_cli.report.pictures import ImageSource, Picture, embed, read_pixels
from yolo_cli.version import __version__

MAX_BYTES = 5_000_000
_RESERVE = 20_000  # bytes for the notes that depend on the pictures
_TEMPLATES = Path(__file__).parent / "templates"
_FILTERS = ("count_of", "shortened", "sortable", "percent", "decimals", "score", "change", "proportion", "with_error")


def render_page(template: str, context: Mapping[str, Any], pictures: Sequence[Picture], source: ImageSource) -> str:
    """The HTML of a template, at most MAX_BYTES in UTF-8, with as many of the pictures as have room.

    Reads the images that are shown. The template gets `unreadable`, one line for each that cannot be read, and
    `dropped`, the number of pictures that have no room.
    """
    unreadable = read_pixels(pictures, source)
    script = (_TEMPLATES / "report.js").read_text(encoding="utf-8")
    shared = {
        "version": __version__,
        "style": (_TEMPLATES / "report.css").read_text(encoding="utf-8"),
        "script": script,
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "unreadable": unreadable,
    }
    page = _environment().get_template(template)
    without = page.render(context, **shared, dropped=0)
    dropped = embed(pictures, MAX_BYTES - len(without.encode()) - _RESERVE)
    return page.render(context, **shared, dropped=dropped)


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in _FILTERS:
        environment.filters[name] = getattr(text, name)
    return environment
