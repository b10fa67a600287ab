"""Images per second of exported files at batch size 1 and 640 pixels, against PyTorch and ultralytics' exports.

Each round times every file once, one after another in one process: yolov5n in PyTorch (fused, channels-last), and its
ONNX and OpenVINO files, with the same number of threads. ultralytics' yolov5n has another head (split, without
anchors), so its files have the same backbone and neck as ours, but are not the same network. Its own command exports it
with random weights, which do not change the amount of work. Without --peers only our files are timed.
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
    """Our network in PyTorch and as exported files."""
    config = ExportConfig(weights=weights, include="onnx,openvino", img=(IMG, IMG), project=str(folder))
    files = {result.name: result.path for result in export(config, Silent())}
    runs: dict[str, Run] = {}
    pixels = torch.rand(1, 3, IMG, IMG)
    for name, path in {"pytorch": Path(weights), **files}.items():
        runtime = load_model(path, CPU, Silent()).runtime
        given = pixels.contiguous(memory_format=torch.channels_last) if name == "pytorch" else pixels
        runs[name] = lambda runtime=runtime, given=given: runtime.predict(given)  # type: ignore[misc]
    return runs


def ultralytics(python: Path, folder: Path) -> dict[str, Run]:
    """Its exported files in the same runtimes, with the same settings."""
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
    """Images per second of each, from the median time per image."""
    figures = {}
    with torch.inference_mode():
        for name, run in runs.items():
            seconds = []
            for _ in range(WARM_UP + IMAGES):
                start = time.perf_counter()
                run()
                seconds.append(time.perf_counter() - start)
            figures[name] = 1 / statistics.median(seconds[WARM_UP:])
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
