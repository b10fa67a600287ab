"""What a pickled file may name, and the inert things that it gets instead."""

import re
from pathlib import Path
from typing import Any

from yolo_cli.errors import UserError

# What YOLO repositories keep in these modules: blocks, heads and models. A class is accepted by module and by the
# shape of its name; it becomes an inert Stub whatever it is, so the list need not know each block.
_MODULES = re.compile(
    r"((yolov\d\w*\.)?(models|utils)(\.[a-z]\w*)+"
    r"|torch\.nn\.modules\.(activation|batchnorm|container|conv|dropout|flatten|linear|loss|module|normalization"
    r"|padding|pooling|upsampling)"
    r"|torch\.nn\.parallel\.(data_parallel|distributed))\.[A-Z]\w*"
)
# Data that old trainers put beside the model: numbers of numpy, paths, options, dates. None of it is needed.
_DATA = re.compile(
    r"(numpy\.(core|_core)\.(multiarray\.(scalar|_reconstruct)|numeric\._frombuffer)|numpy\.(dtype|ndarray)"
    r"|numpy\.dtypes\.\w+|pathlib\.(Pure)?(Posix|Windows)?Path|pathlib\._local\.\w+|argparse\.Namespace"
    r"|datetime\.(datetime|date|time|timedelta|timezone)|collections\.(defaultdict|Counter)|types\.SimpleNamespace"
    r"|(__builtin__|builtins)\.(bool|bytearray|bytes|complex|dict|float|frozenset|int|list|range|slice|str|tuple)"
    r"|torch\.nn\.backends\.thnn\._get_thnn_function_backend|_codecs\.encode)"
)
SETS = ("__builtin__.set", "builtins.set")


class Stub:
    """A module of the file as data: what it held is in its attributes; it can do nothing."""

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise TypeError("a module's state is a mapping")
        self.__dict__.update({str(key): value for key, value in state.items()})


class Inert:
    """Something that is not needed: takes whatever it is given and keeps nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "Inert":
        """Any arguments."""
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        """Nothing."""

    def extend(self, values: Any) -> None:
        """Nothing."""


class PlainSet(set[Any]):
    """A set of what a list or tuple holds: a tensor may repeat one number without end."""

    def __init__(self, values: Any = ()) -> None:
        super().__init__(plain(values))


def plain(values: Any) -> Any:
    """A list or tuple as it is. Raises TypeError for anything else."""
    if not isinstance(values, list | tuple):
        raise TypeError("a list is expected")
    return values


def stand_in(name: str) -> type | None:
    """What stands for a name of the file; None where it may not be used."""
    if _MODULES.fullmatch(name):
        return type(name.rpartition(".")[2], (Stub,), {"__module__": __name__})
    if name in SETS:
        return PlainSet
    return Inert if _DATA.fullmatch(name) else None


def refusal(path: Path, name: str) -> UserError:
    """The error for a file that names something beyond data and known blocks."""
    if name.startswith("ultralytics."):
        what = f"refused: made of {name}, a later family that is not supported; nothing of it was run"
        return UserError(what, where=path, fix="give a checkpoint of YOLOv3, YOLOv5 or YOLOv7")
    return UserError(
        f"refused: the file wants to use {name}, which is neither data nor a known block; nothing of it was run",
        where=path,
        fix="do not trust this file",
    )
