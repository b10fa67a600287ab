"""Speed of our own models side by side on the CPU: training step, `yolo val`, ONNX Runtime and OpenVINO.

    python benchmarks/models.py yolox_nano.pth yolov5n.pt

The first model is the base of the ratios. Which one detects better is a question for `yolo compare`.
"""

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from side_by_side import (
    Figures,
    Measure,
    add_data_options,
    alternate,
    ask,
    copy_dataset,
    environment,
    options,
    report,
    seconds,
    workplace,
)

IMG, IMAGES, STEP = 416, 100, "320, batch 16"
MEASURES = (
    Measure("training step", "images/s", True),
    Measure("val", "s", False),
    Measure("ONNX Runtime", "ms", False),
    Measure("OpenVINO", "ms", False),
)


def exported(weights: Path, folder: Path) -> dict[str, Path]:
    """The file in each format, by the name of its runtime."""
    from yolo_cli.commands.export import run
    from yolo_cli.config import ExportConfig
    from yolo_cli.progress import Silent

    options = ExportConfig(
        weights=str(weights), include="onnx,openvino", img=(IMG, IMG), verify=False, project=str(folder)
    )
    return dict(zip(("ONNX Runtime", "OpenVINO"), (done.path for done in run(options, Silent())), strict=True))


def measured(weights: Path, files: dict[str, Path], data: Path, batches: dict[str, str], folder: Path) -> Figures:
    """One round of one model."""
    from yolo_cli.inference.latency import measure_in_process

    env = environment(folder)
    task = {"data": str(data), "batches": batches, "weights": str(weights)}
    script = str(Path(__file__).with_name("train_step.py"))
    step = ask(sys.executable, script, "yolo_cli", task, environment(folder, pinned=True), folder)
    command = [sys.executable, "-m", "yolo_cli", "val", "--weights", str(weights), "--data", str(data)]
    command += ["--img", str(IMG), "--noplots", "--project", str(folder / "runs")]
    figures = {"training step": step[f"{STEP}, median step"], "val": seconds(command, env, folder)}
    for runtime, file in files.items():
        latency = measure_in_process(file, cfg="", device="cpu", img=(IMG, IMG), images=IMAGES, half=False)
        figures[runtime] = latency.milliseconds
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    from train_step import make_batches

    parser = options(__doc__, runs=3)
    parser.add_argument("weights", nargs="+", type=Path, help="weight files")
    add_data_options(parser)
    args = parser.parse_args(arguments)
    with workplace() as folder:
        os.environ |= environment(folder)
        data = copy_dataset(args.data, folder / "data")
        batches = make_batches(data, folder, [STEP])
        sides = {}
        for number, weights in enumerate(path.absolute() for path in args.weights):
            files = exported(weights, folder / str(number))
            sides[weights.stem] = partial(measured, weights, files, data, batches, folder)
        rounds = alternate(sides, args.runs)
    settings = {"img": IMG, "step": STEP, "images": IMAGES, "runs": args.runs, "data": Path(args.data).parent.name}
    report("models", MEASURES, rounds, json_file=args.json, settings=settings, base=next(iter(sides)))


if __name__ == "__main__":
    main()
