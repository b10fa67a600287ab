"""Every format that a model can leave in, in one table."""

import importlib.util
import platform
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch

from yolo_cli.errors import UserError
from yolo_cli.export import aotinductor, coreml, executorch, ncnn, onnx, openvino, pt2, tensorrt, torchscript
from yolo_cli.export.request import Request
from yolo_cli.export.runtime import Runtime

Open = Callable[[Path, torch.device], Runtime]


@dataclass(frozen=True, slots=True)
class Format:
    """One way out, and back in where files of it can be run from here."""

    suffix: str  # behind the weights' stem; a folder's name ends so, too
    write: Callable[[Request, Path], None]
    open: Open | None
    extra: str = ""  # of this package, which brings those that it takes:
    packages: tuple[str, ...] = ()
    dynamic: bool = True
    half: bool = True
    int8: bool = False
    nms: bool = False
    folder: bool = False
    experimental: str = ""  # why it is not claimed to work

    def path(self, weights: Path) -> Path:
        """Where a model of these weights goes, beside them."""
        return weights.with_name(f"{weights.stem}{self.suffix}")

    def takes(self, path: Path) -> bool:
        """Whether a file or folder is of this format, by its name."""
        name = path.parent.name if self.folder and path.is_file() else path.name
        return name.endswith(self.suffix)


_ONNX = ("onnx", "onnxscript")

FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "torchscript": Format(".torchscript", torchscript.write, torchscript.open_file, nms=True),
        "onnx": Format(
            ".onnx", onnx.write, onnx.open_file, "onnx", (*_ONNX, "onnxruntime", "onnxslim"), int8=True, nms=True
        ),
        "openvino": Format(
            "_openvino_model",
            openvino.write,
            openvino.open_file,
            "openvino",
            (*_ONNX, "openvino"),
            int8=True,
            nms=True,
            folder=True,
        ),
        # before pt2, whose suffix ends alike
        "aotinductor": Format("_aoti.pt2", aotinductor.write, aotinductor.open_file),
        "pt2": Format(".pt2", pt2.write, pt2.open_file),
        "ncnn": Format("_ncnn_model", ncnn.write, ncnn.open_file, "ncnn", ("ncnn", "pnnx"), dynamic=False, folder=True),
        "executorch": Format(
            ".pte",
            executorch.write,
            executorch.open_file,
            "executorch",
            ("executorch",),
            dynamic=False,
            half=False,
        ),
        "tensorrt": Format(
            ".engine",
            tensorrt.write,
            tensorrt.open_file,
            "tensorrt",
            (*_ONNX, "tensorrt"),
            nms=True,
            experimental="it has never been run: that takes an NVIDIA GPU",
        ),
        "coreml": Format(
            ".mlpackage",
            coreml.write,
            None,
            "coreml",
            ("coremltools",),
            dynamic=False,
            experimental="converted only; what it gives runs on macOS alone",
        ),
    }
)


def find_format(name: str) -> Format:
    """A format by name. Raises UserError that lists them."""
    found = FORMATS.get(name)
    if found is None:
        raise UserError("unknown format", where=f"--include {name}", fix=f"known are {', '.join(FORMATS)}")
    return found


def format_of(path: Path) -> str:
    """The format of an exported file or folder by its name; "" for weights of another kind."""
    return next((name for name, known in FORMATS.items() if known.takes(path)), "")


def open_exported(path: Path, device: torch.device) -> Runtime:
    """An exported file or folder, ready to run. Raises UserError where it is missing, damaged, or cannot run here."""
    known = FORMATS[format_of(path)]
    if not path.exists():
        raise UserError("no such file", where=path)
    if known.open is None:
        raise UserError(f"cannot be run on {platform.system()}", where=path, fix="run it where it belongs")
    return known.open(path, device)


def lacking(name: str) -> str:
    """What this machine lacks for writing a format; "" where it lacks nothing."""
    known = FORMATS[name]
    for package in known.packages:
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed; pip install 'yolo-cli[{known.extra}]'"
    if name == "tensorrt" and not torch.cuda.is_available():
        return "an engine is built on the GPU that runs it, and there is none"
    if name == "aotinductor" and shutil.which("g++") is None and shutil.which("clang++") is None:
        return "needs a C++ compiler (g++ or clang++)"
    return ""
