"""Optional packages of the export formats."""

import importlib
import importlib.util
from typing import Any

from yolo_cli.errors import UserError


def import_optional(module: str, extra: str) -> Any:
    """Import a module of an optional package. Raises UserError with the extra of yolo-cli that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        missing = importlib.util.find_spec(package) is None
        what = f"{package} is not installed" if missing else f"{module} does not load here ({error})"
        raise UserError(what, where=extra, fix=f"pip install 'yolo-cli[{extra}]'") from None
