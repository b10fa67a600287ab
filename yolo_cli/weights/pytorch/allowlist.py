"""The names that a pickled file may use, and the inert stubs that stand for them."""

import re
from pathlib import Path
from typing import Any

from yolo_cli.errors import UserError

# Where YOLO repositories keep their blocks, heads and models. A class is allowed by its module and by the form of its
# name. Every class becomes an inert ModuleStub, so the blocks need not be listed one by one.
_MODULES = re.compile(
    r"((yolov\d\w*\.)?(models|utils)(\.[a-z]\w*)+"
    r"|torch\.nn\.modules\.(activation|batchnorm|container|conv|dropout|flatten|linear|loss|module|normalization"
    r"|padding|pooling|upsampling)"
    r"|torch\.nn\.parallel\.(data_parallel|distributed))\.[A-Z]\w*"
)
# Data that trainers store beside the model: numpy numbers, paths, options, dates. None of it is needed.
_DATA = re.compile(
    r"(numpy\.(core|_core)\.(multiarray\.(scalar|_reconstruct)|numeric\._frombuffer)|numpy\.(dtype|ndarray)"
    r"|numpy\.dtypes\.\w+|pathlib\.(Pure)?(Posix|Windows)?Path|pathlib\._local\.\w+|argparse\.Namespace"
    r"|datetime\.(datetime|date|time|timedelta|timezone)|collections\.(defaultdict|Counter)|types\.SimpleNamespace"
    r"|(__builtin__|builtins)\.(bool|bytearray|bytes|complex|dict|float|frozenset|int|list|range|slice|str|tuple)"
    r"|torch\.nn\.backends\.thnn\._get_thnn_function_backend|_codecs\.encode)"
)
_SETS = ("__builtin__.set", "builtins.set")


class ModuleStub:
    """A module of the file as plain data: its attributes hold what the module held. It has no methods."""

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise TypeError("a module's state is a mapping")
        self.__dict__.update({str(key): value for key, value in state.items()})


class DiscardedData:
    """Stands for data that is not needed: accepts any arguments and stores nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "DiscardedData":
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        pass

    def extend(self, values: Any) -> None:
        pass


class CheckedSet(set[Any]):
    """A set made from a list or tuple only, because iterating over a tensor may take forever."""

    def __init__(self, values: Any = ()) -> None:
        super().__init__(checked_list(values))


def checked_list(values: Any) -> Any:
    """`values` unchanged where it is a list or tuple; raises TypeError for anything else."""
    if not isinstance(values, list | tuple):
        raise TypeError("a list is expected")
    return values


def stub_for(name: str) -> type | None:
    """The class that stands for a name of the file; None where the name is not allowed."""
    if _MODULES.fullmatch(name):
        return type(name.rpartition(".")[2], (ModuleStub,), {"__module__": __name__})
    if name in _SETS:
        return CheckedSet
    return DiscardedData if _DATA.fullmatch(name) else None


def not_allowed(path: Path, name: str) -> UserError:
    """The error for a file that uses a name outside the allowlist."""
    if name.startswith("ultralytics."):
        what = f"refused: made of {name}, a later family that is not supported; nothing of it was run"
        return UserError(what, where=path, fix="give a checkpoint of YOLOv3, YOLOv5 or YOLOv7")
    return UserError(
        f"refused: the file uses {name}, which is neither data nor a known block; nothing of it was run",
        where=path,
        fix="do not trust this file",
    )
