"""JSON files of the user, with one clear error for each that cannot be read."""

import json
from pathlib import Path
from typing import Any

from yolo_cli.errors import UserError, first_line
from yolo_cli.io.text_file import read_content


def read_json(path: Path, *, max_bytes: int) -> Any:
    """The value of a JSON file (UTF-8, UTF-16 or UTF-32).

    Raises UserError for a file that is missing, unreadable, malformed, nested too deeply or larger than `max_bytes`.
    """
    try:
        return json.loads(read_content(path, kind="JSON", max_bytes=max_bytes))
    except json.JSONDecodeError as error:
        raise UserError(f"malformed JSON: {error.msg}", where=f"{path}:{error.lineno}") from None
    except RecursionError:
        raise UserError("malformed JSON: nested too deeply", where=path) from None
    except ValueError as error:  # no text, or a number of thousands of digits
        raise UserError(f"malformed JSON: {first_line(error)}", where=path) from None
