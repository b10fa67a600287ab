"""Checkpoints for fuzzing: a letter for the format, then only the pickle."""

import contextlib
import io
import itertools
import pickle
import pickletools
import sys
import types
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import torch

from yolo_cli.model.architecture import from_mapping
from yolo_cli.model.build import DetectionModel

YAML: dict[str, Any] = {
    "nc": 1,
    "anchors": [[10, 13]],
    "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "C3", [8]]],
    "head": [[[1], 1, "Detect", ["nc", "anchors"]]],
}
_STORAGE = 1024  # bytes of a storage whose size is not valid
_MOST = 2**23  # bytes of all storages
_ITEM = {"torch HalfStorage": 2, "torch LongStorage": 8, "torch DoubleStorage": 8, "torch BoolStorage": 1}
_NAMES = (
    b"os\nsystem", b"posix\nsystem", b"builtins\neval", b"__builtin__\ngetattr", b"torch\nFloatStorage",
    b"torch._utils\n_rebuild_tensor_v2", b"torch._utils\n_rebuild_parameter", b"torch\nSize", b"models.yolo\nModel",
    b"models.common\nConv", b"collections\nOrderedDict", b"numpy\ndtype", b"builtins\nset", b"torch\ndevice",
    b"torch._tensor\n_rebuild_from_type_v2", b"collections\ndefaultdict", b"torch.nn.modules.conv\nConv2d",
    b"pathlib\nPosixPath", b"torch.serialization\nload", b"builtins\nrange", b"_codecs\nencode", b"torch\nload",
)  # fmt: skip
_OPCODES = (
    b"(", b".", b"0", b"1", b"2", b"N", b"Q", b"R", b"]", b"}", b")", b"a", b"b", b"e", b"l", b"t", b"u", b"s", b"o",
    b"d", b"\x81", b"\x85", b"\x86", b"\x87", b"\x88", b"\x89", b"\x8f", b"\x90", b"\x91", b"\x92", b"\x93", b"\x94",
    b"K\xff", b"J\xff\xff\xff\x7f", b"J\xff\xff\xff\xff", b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f", b"h\x00",
    b"h\x07", b"r\xff\xff\xff\x7f", b"q\x01", b"X\x00\x00\x00\x00", b"X\xff\xff\xff\x7fx", b"\x8b\xff\xff\xff\x7f",
    b"B\xff\xff\xff\x7f", b"X\x07\x00\x00\x00_modules", b"X\x05\x00\x00\x00model",
    b"G\x7f\xf0\x00\x00\x00\x00\x00\x00", b"\x80\x02", b"\x82\x01", b"I99999999999999999999\n", b"P0\n",
    b"\x95\xff\xff\xff\xff\xff\xff\xff\x7f",
)  # fmt: skip


def packed(data: bytes) -> bytes:
    """The checkpoint file that the fuzzed bytes describe."""
    form, content = data[:1], data[1:]
    if form == b"Z":
        return as_zip(content)
    return as_legacy(content) if form == b"L" else content


def as_zip(main: bytes) -> bytes:
    """A zip checkpoint with the given pickle and storages of the sizes in it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", main)
        archive.writestr("archive/byteorder", "little")
        for key, (size, _) in storages(main).items():
            archive.writestr(f"archive/data/{key}", _numbers(size))
        archive.writestr("archive/version", "3\n")
    return out.getvalue()


def as_legacy(main: bytes) -> bytes:
    """A legacy checkpoint with the given main pickle and its storages after it."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    parts = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, system)]
    found = storages(main)
    numbers = b"".join(count.to_bytes(8, "little") + _numbers(size) for size, count in found.values())
    return b"".join(parts) + main + pickle.dumps(list(found), 2) + numbers


def _numbers(size: int) -> bytes:
    return b"\x3f" * size  # positive in every number type, because variances and anchors must be


def storages(main: bytes) -> dict[str, tuple[int, int]]:
    """Size in bytes and number count of each storage that a pickle refers to, by key. Invalid sizes are replaced."""
    found: dict[str, tuple[int, int]] = {}
    memo: dict[Any, Any] = {}
    said: list[Any] = []
    total = 0
    with contextlib.suppress(Exception):  # stop where a damaged pickle ends
        for opcode, argument, _ in pickletools.genops(main):
            name = opcode.name
            if name.endswith("PUT") and said:
                memo[argument] = said[-1]
            elif name == "BINPERSID" and len(said) >= 4:
                kind, key, _, count = said[-4:]
                if isinstance(key, str) and isinstance(count, int) and key not in found:
                    size = count * _ITEM.get(str(kind), 4)
                    total += size
                    found[key[:40]] = (size, count) if size >= 0 and total <= _MOST else (_STORAGE, _STORAGE // 4)
            elif name in ("GLOBAL", "BININT1", "BININT2", "BININT", "BINUNICODE", "NONE"):
                if name != "NONE":
                    said.append(argument)
            elif name.endswith("GET"):
                said.append(memo.get(argument))
    return found


def seeds() -> list[bytes]:
    """Valid checkpoints in every format: ours, and the module tree of another project."""
    model = DetectionModel(from_mapping(YAML, name="tiny", where="seed"), ("a",)).eval()
    own = {
        "format": "yolo_cli checkpoint",
        "version": 1,
        "architecture": model.architecture.to_mapping(),
        "names": ["a"],
        "epoch": 1,
        "model": {name: torch.zeros_like(value) for name, value in model.state_dict().items()},
    }
    found = []
    with _their_classes() as theirs, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for content in (own, {"ema": _as_theirs(model, theirs), "model": None}, {"weight": torch.zeros(3)}):
            new, old = io.BytesIO(), io.BytesIO()
            torch.save(content, new)
            torch.save(content, old, _use_new_zipfile_serialization=False)
            with zipfile.ZipFile(new) as archive:
                name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
                found.append(b"Z" + archive.read(name))
            found.extend((b"F" + new.getvalue(), b"F" + old.getvalue(), b"L" + _main_pickle(old.getvalue())))
    return found


def _main_pickle(old: bytes) -> bytes:
    file = io.BytesIO(old)
    ends = []
    for _ in range(4):
        for _opcode in pickletools.genops(file):
            pass
        ends.append(file.tell())
    return old[ends[2] : ends[3]]


@contextmanager
def _their_classes() -> Iterator[dict[str, type]]:
    """Classes of a package that exists only while the checkpoints are made."""
    package = types.ModuleType("models.yolo")
    made = {name: type(name, (), {"__module__": "models.yolo"}) for name in ("Model", "Detect", "Conv", "C3")}
    package.__dict__.update(made)
    sys.modules.update({"models": types.ModuleType("models"), "models.yolo": package})
    try:
        yield made
    finally:
        del sys.modules["models"], sys.modules["models.yolo"]


def _as_theirs(model: DetectionModel, classes: dict[str, type]) -> Any:
    top = classes["Model"]()
    tree = torch.nn.Sequential(*model.model)
    top.__dict__.update(_modules={"model": _copied(tree, classes)}, yaml=YAML, names=["a"], nc=1)
    top._modules["model"]._modules[str(len(model.model) - 1)].stride = torch.tensor(model.strides).float()
    return top


def _copied(module: torch.nn.Module, classes: dict[str, type]) -> Any:
    """The module tree with classes of the other project. Modules of torch stay."""
    cls = classes.get(type(module).__name__)
    if cls is None and not type(module).__module__.startswith("torch.nn"):
        cls = classes["C3"]
    copy = module.__new__(type(module)) if cls is None else cls()
    copy.__dict__.update({k: v for k, v in module.__dict__.items() if not k.startswith("_") or k in _KEPT})
    copy.__dict__["_modules"] = {key: _copied(child, classes) for key, child in module._modules.items() if child}
    return copy


_KEPT = ("_parameters", "_buffers", "_non_persistent_buffers_set")


def mutated(data: bytes, random: Random) -> bytes:
    """The pickle with a few opcodes changed. Bytes that are no pickle get a few bytes changed."""
    pieces = opcodes(data[1:])
    for _ in range(random.choice((1, 1, 2, 4, 8))):
        at = random.randrange(len(pieces) + 1)
        kind = random.randrange(6)
        if kind == 0 and pieces:
            pieces[at - 1] = b""
        elif kind == 1:
            pieces.insert(at, random.choice(_OPCODES))
        elif kind == 2:
            pieces.insert(at, b"c" + random.choice(_NAMES) + b"\n")
        elif kind == 3 and pieces:
            pieces.insert(at, random.choice(pieces) * random.choice((1, 1, 1, 2, 50)))
        elif kind == 4 and pieces:
            other = random.randrange(len(pieces))
            pieces[at - 1], pieces[other] = pieces[other], pieces[at - 1]
        elif pieces:
            piece = bytearray(pieces[at - 1])
            if piece:
                piece[random.randrange(len(piece))] = random.choice((0, 1, 2, 4, 127, 128, 255, random.randrange(256)))
            pieces[at - 1] = bytes(piece)
    return data[:1] + b"".join(pieces)


def opcodes(data: bytes) -> list[bytes]:
    """The pickle split into opcodes. Bytes that cannot be split stay together."""
    starts: list[int] = []
    with contextlib.suppress(Exception):  # stop where a damaged pickle ends
        starts.extend(position for _, _, position in pickletools.genops(data) if position is not None)
    edges = [*starts, len(data)] if starts else [0, len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]
