"""YAML files as data: read with the safe loader, errors with file and line."""

from pathlib import Path
from typing import Any

import yaml

from yolo_cli.errors import UserError
from yolo_cli.io.atomic import write_atomically
from yolo_cli.io.text_file import read_text

MAX_BYTES = 2**20  # far more than any real file has; a wrong path (a video, say) would take minutes
MAX_NUMBER = 100  # characters; PyYAML's time for a number such as 1:1:1 is quadratic in them
MAX_INTEGER = 2**63 - 1  # a larger one fits no tensor; Python cannot print a very large one or convert it to float
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class _Loader(yaml.SafeLoader):
    """Refuses aliases (a few lines can expand to gigabytes), repeated keys (the first would be lost), huge numbers."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.composer.ComposerError(None, None, "aliases are not supported", event.start_mark)
        return super().compose_node(parent, index)

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        if isinstance(node, yaml.ScalarNode) and len(node.value) > MAX_NUMBER and node.tag in _NUMBERS:
            raise yaml.constructor.ConstructorError(None, None, "a number is too long", node.start_mark)
        try:
            value = super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):  # raised by PyYAML for `!!int ""`
            raise yaml.constructor.ConstructorError(None, None, f"not a {node.tag}", node.start_mark) from None
        if isinstance(value, int) and abs(value) > MAX_INTEGER:
            raise yaml.constructor.ConstructorError(None, None, "a number is too large", node.start_mark)
        return value

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        if not isinstance(node, yaml.MappingNode):
            raise yaml.constructor.ConstructorError(None, None, "a mapping is expected", node.start_mark)
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float | bool | None):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a plain value", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} repeats", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_mapping(path: Path) -> dict[str, Any]:
    """The top-level mapping of a YAML file.

    Raises UserError, with the line where there is one, for a missing, unreadable or malformed file.
    """
    return parse_mapping(read_text(path, kind="YAML", max_bytes=MAX_BYTES), path)


def parse_mapping(text: str, where: object) -> dict[str, Any]:
    """The top-level mapping of YAML text; `where` names it in errors."""
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"malformed YAML: {error.problem}", where=f"{where}{line}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"malformed YAML: {error}", where=where) from None
    if not isinstance(value, dict):
        raise UserError("a mapping (key: value lines) is expected", where=where)
    if odd := [key for key in value if not isinstance(key, str)]:
        raise UserError(f"a key of the file must be a word, not {odd[0]!r}", where=where)
    return value


def write_mapping(path: Path, mapping: dict[str, Any]) -> None:
    """Write a mapping atomically, in its own key order. Raises UserError where the file cannot be written."""
    text = yaml.safe_dump(mapping, sort_keys=False, allow_unicode=True, width=120)
    # Values may be paths, which may be any bytes.
    write_atomically(path, text.encode("utf-8", "backslashreplace"), what=path.name)
