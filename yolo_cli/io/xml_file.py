"""XML files of the user as data: no entity is ever expanded or fetched."""

from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from yolo_cli.errors import UserError
from yolo_cli.io.text_file import read_content

MAX_DEPTH = 100  # elements within each other; annotations have about five


def read_xml(path: Path, *, max_bytes: int) -> Element:
    """The root element of an XML file.

    Raises UserError for a file that is missing, unreadable, malformed, nested too deeply or larger than `max_bytes`,
    and for one that declares entities, which a few lines can expand to gigabytes or to files of this machine.
    """
    content = read_content(path, kind="XML", max_bytes=max_bytes)
    builder = TreeBuilder()
    parser = expat.ParserCreate()
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise UserError("malformed XML: nested too deeply", where=f"{path}:{parser.CurrentLineNumber}")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(*_: object) -> None:
        raise UserError("declares entities, which are not supported", where=f"{path}:{parser.CurrentLineNumber}")

    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise UserError(f"malformed XML: {expat.ErrorString(error.code)}", where=f"{path}:{error.lineno}") from None
    except (ValueError, LookupError):  # an encoding that Python does not know, or has no single bytes
        raise UserError("malformed XML: unknown encoding", where=path) from None
    return builder.close()
