"""The export formats, in one table.

To add a format, write a file with a `write` function and a FileRuntime beside the existing ones, and add a row.
"""

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
from yolo_cli.export.runtime import Runtime
from yolo_cli.export.spec import ExportSpec


def _nothing_missing() -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Format:
    """How to write a model in one format, and how to run the file."""

    suffix: str  # of the file or folder, after the stem of the weights
    write: Callable[[ExportSpec, Path], None]
    open: Callable[[Path, torch.device], Runtime] | None  # None where files of this format cannot be run here
    extra: str = ""  # of yolo-cli, which installs the packages
    packages: tuple[str, ...] = ()
    missing: Callable[[], str] = _nothing_missing  # what else is missing on this machine
    dynamic: bool = True  # which options it supports: --dynamic, --half, --int8, --nms
    half: bool = True
    int8: bool = False
    nms: bool = False
    folder: bool = False
    experimental: str = ""  # the reason why it is not claimed to work
    runs_code: str = ""  # a warning for files that can do anything a program can

    def path(self, weights: Path) -> Path:
        """The path of the exported file, beside the weights."""
        return weights.with_name(f"{weights.stem}{self.suffix}")

    def matches(self, path: Path) -> bool:
        """Whether a file or folder is of this format, by its name."""
        name = path.parent.name if self.folder and path.is_file() else path.name
        return name.endswith(self.suffix)


FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "torchscript": Format(
            ".torchscript",
            torchscript.write,
            torchscript.TorchScriptRuntime,
            nms=True,
            runs_code="is a program, which runs now",  # some of its operators open and write files
        ),
        "onnx": Format(
            ".onnx",
            onnx.write,
            onnx.ONNXRuntime,
            extra="onnx",
            packages=("onnx", "onnxscript", "onnxruntime", "onnxslim"),
            int8=True,
            nms=True,
        ),
        "openvino": Format(
            "_openvino_model",
            openvino.write,
            openvino.OpenVINORuntime,
            extra="openvino",
            packages=("onnx", "onnxscript", "openvino"),
            int8=True,
            nms=True,
            folder=True,
        ),
        # Before pt2, because its suffix ends with that of pt2.
        "aotinductor": Format(
            "_aoti.pt2",
            aotinductor.write,
            aotinductor.AOTInductorRuntime,
            missing=aotinductor.missing,
            runs_code="holds compiled code, which runs now",
        ),
        "pt2": Format(".pt2", pt2.write, pt2.TorchExportRuntime),
        "ncnn": Format(
            "_ncnn_model",
            ncnn.write,
            ncnn.NCNNRuntime,
            extra="ncnn",
            packages=("ncnn", "pnnx"),
            dynamic=False,
            folder=True,
        ),
        "executorch": Format(
            ".pte",
            executorch.write,
            executorch.ExecuTorchRuntime,
            extra="executorch",
            packages=("executorch",),
            dynamic=False,
            half=False,
        ),
        "tensorrt": Format(
            ".engine",
            tensorrt.write,
            tensorrt.TensorRTRuntime,
            extra="tensorrt",
            packages=("onnx", "onnxscript", "tensorrt"),
            missing=tensorrt.missing,
            nms=True,
            experimental="it has never been run, because that needs an NVIDIA GPU",
            runs_code="holds compiled code, which runs now",
        ),
        "coreml": Format(
            ".mlpackage",
            coreml.write,
            None,
            extra="coreml",
            packages=("coremltools",),
            dynamic=False,
            experimental="it is only converted, because it runs only on macOS",
        ),
    }
)


def find_format(name: str) -> Format:
    """The format of that name. Raises UserError with the known names."""
    found = FORMATS.get(name)
    if found is None:
        raise UserError("unknown format", where=f"--include {name}", fix=f"known are {', '.join(FORMATS)}")
    return found


def format_of(path: Path) -> str:
    """The format of an exported file or folder, by its name; "" for other weights."""
    return next((name for name, fmt in FORMATS.items() if fmt.matches(path)), "")


def missing_requirement(name: str) -> str:
    """What is missing on this machine to write a format; "" for nothing."""
    fmt = FORMATS[name]
    for package in fmt.packages:
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed; pip install 'yolo-cli[{fmt.extra}]'"
    return fmt.missing()


def write_exported(name: str, spec: ExportSpec, path: Path) -> None:
    """Write a file or folder of a format; nothing is left where that fails. Raises UserError."""
    try:
        FORMATS[name].write(spec, path)
    except BaseException as error:
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        if isinstance(error, UserError) or not isinstance(error, Exception):
            raise
        # Exporters raise any exception for a network that they do not support.
        detail = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(f"could not be written ({detail})", where=f"--include {name}") from error


def open_exported(path: Path, device: torch.device) -> Runtime:
    """An exported file or folder, ready to run. Raises UserError where it is missing, damaged, or cannot run here."""
    fmt = FORMATS[format_of(path)]
    if not path.exists():
        raise UserError("no such file", where=path)
    if fmt.open is None:
        raise UserError(f"cannot be run on {platform.system()}", where=path, fix="run it on the platform it is for")
    return fmt.open(path, device)


def exported_megabytes(path: Path) -> float:
    """Size of an exported file, or of all files of a folder, in MB."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6
