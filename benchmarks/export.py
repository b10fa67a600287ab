"""Images a second of exported files, one at a time at 640: ours against PyTorch and against ultralytics' exports.

Each round times every file once, in turn, in one process: yolov5n in PyTorch (fused, channels-last), and its ONNX and
OpenVINO files, run with the same threads. ultralytics' yolov5n has another head (split, without anchors), so its files
are like ours in backbone and neck, and not the same network; its own command exports it with random weights, since the
work does not depend on them. Without --peers ours are timed alone.
"""

import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from side_by_side import (
    OURS,
    Figures,
    Measure,
    add_data_options,
    alternate,
    environment,
    options,
    peer_pythons,
    report,
    workplace,
)

from yolo_cli.commands.export import run as export
from yolo_cli.config import ExportConfig
from yolo_cli.progress import Silent
from yolo_cli.weights.load import load_model

IMG, IMAGES, WARM_UP = 640, 40, 5
CPU = torch.device("cpu")
MEASURES = (
    Measure("pytorch", "images/s", True),
    Measure("onnx", "images/s", True, "faster than PyTorch"),
    Measure("openvino", "images/s", True, "faster than PyTorch"),
)
Run = Callable[[], object]


def ours(weights: str, folder: Path) -> dict[str, Run]:
    """Our network in PyTorch and as files."""
    wanted = ExportConfig(weights=weights, include="onnx,openvino", img=(IMG, IMG), project=str(folder))
    files = {one.name: one.path for one in export(wanted, Silent())}
    runs: dict[str, Run] = {}
    pixels = torch.rand(1, 3, IMG, IMG)
    for name, path in {"pytorch": Path(weights), **files}.items():
        runtime = load_model(path, CPU, Silent()).runtime
        given = pixels.contiguous(memory_format=torch.channels_last) if name == "pytorch" else pixels
        runs[name] = lambda runtime=runtime, given=given: runtime.predict(given)  # type: ignore[misc]
    return runs


def ultralytics(python: Path, folder: Path) -> dict[str, Run]:
    """Its files, run by the same runtimes with the same settings."""
    import onnxruntime
    import openvino

    env = environment(folder, python)
    for kind in ("onnx", "openvino"):
        command = [str(python.with_name("yolo")), "export", "model=yolov5n.yaml", f"format={kind}", f"imgsz={IMG}"]
        subprocess.run(command, check=True, cwd=folder, env=env, stdout=subprocess.DEVNULL)
    pixels = torch.rand(1, 3, IMG, IMG).numpy()
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(next(folder.glob("*.onnx"))), settings, ["CPUExecutionProvider"])
    given = session.get_inputs()[0].name
    xml = str(next(folder.glob("*_openvino_model/*.xml")))
    hints = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(xml, "CPU", {**hints, "INFERENCE_NUM_THREADS": torch.get_num_threads()})
    request = compiled.create_infer_request()
    return {"onnx": lambda: session.run(None, {given: pixels}), "openvino": lambda: request.infer([pixels])}


def rate(runs: Mapping[str, Run]) -> Figures:
    """Images a second of each, by the median of single images."""
    figures = {}
    with torch.inference_mode():
        for name, run in runs.items():
            spent = []
            for _ in range(WARM_UP + IMAGES):
                start = time.perf_counter()
                run()
                spent.append(time.perf_counter() - start)
            figures[name] = 1 / statistics.median(spent[WARM_UP:])
    return figures


def main() -> None:
    parser = options(__doc__, runs=3)
    add_data_options(parser, weights=True)
    args = parser.parse_args()
    peers = peer_pythons(args.peers, ("ultralytics",))
    with workplace() as folder:
        sides = {OURS: ours(args.weights, folder / "runs")}
        for name, python in peers.items():
            sides[name] = ultralytics(python, folder)
        rounds = alternate({name: (lambda runs=runs: rate(runs)) for name, runs in sides.items()}, args.runs)  # type: ignore[misc]
        settings = {
            "weights": Path(args.weights).name,
            "img": IMG,
            "images": IMAGES,
            "threads": torch.get_num_threads(),
        }
        report("export", MEASURES, rounds, json_file=args.json, settings=settings, peers=peers)


if __name__ == "__main__":
    main()
