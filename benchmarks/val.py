"""Wall time of the command `val`: coco128's val split at 640×640 with YOLOv5n, with and without plots.

Both commands have the same weights, images, thresholds (confidence 0.001, IoU 0.6, 300 detections per image), batch
size 32 and number of workers. A small evaluation before fills their label caches and is not timed. `yolov5 val` has no
option without plots; it takes `--plots False`.
"""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from side_by_side import (
    OURS,
    Figures,
    Measure,
    add_data_options,
    alternate,
    copy_dataset,
    environment,
    options,
    peer_pythons,
    report,
    seconds,
    workplace,
)

IMG, BATCH = 640, 32
MEASURES = (
    Measure("without plots", "s", False, "½ of yolov5"),
    Measure("with plots", "s", False, "½ of yolov5"),
)


def our_command(weights: str, data: Path, workers: int, img: int, *, plots: bool) -> list[str]:
    yolo = str(Path(sys.executable).with_name("yolo"))
    command = [yolo, "val", "--weights", weights, "--data", str(data), "--img", str(img), "--batch", str(BATCH)]
    command += ["--device", "cpu", "--workers", str(workers), "--project", str(data.parent / "runs")]
    return [*command, "--plots" if plots else "--noplots"]


def yolov5_command(python: Path, weights: str, data: Path, workers: int, img: int, *, plots: bool) -> list[str]:
    command = [str(python.with_name("yolov5")), "val", "--weights", weights, "--data", str(data), "--img", str(img)]
    command += ["--batch", str(BATCH), "--device", "cpu", "--workers", str(workers)]
    return [*command, "--project", str(data.parent / "runs"), "--plots", str(plots)]


def timed(commands: Mapping[str, list[str]], env: Mapping[str, str], folder: Path) -> Callable[[], Figures]:
    return lambda: {name: seconds(command, env, folder) for name, command in commands.items()}


def main() -> None:
    parser = options(__doc__, runs=2)
    add_data_options(parser, weights=True)
    parser.add_argument(
        "--workers", type=int, default=min(os.cpu_count() or 1, 8), help="loader processes of each command"
    )
    args = parser.parse_args()
    weights = str(Path(args.weights).absolute())
    peers = peer_pythons(args.peers, ("yolov5",))
    modes = {"without plots": False, "with plots": True}
    with workplace() as folder:
        sides = {}
        for name in (OURS, *peers):
            data = copy_dataset(args.data, folder / name)
            env = environment(folder, peers.get(name))

            def command(img: int, *, plots: bool, name: str = name, data: Path = data) -> list[str]:
                if name == OURS:
                    return our_command(weights, data, args.workers, img, plots=plots)
                return yolov5_command(peers[name], weights, data, args.workers, img, plots=plots)

            seconds(command(64, plots=True), env, folder)
            sides[name] = timed({mode: command(IMG, plots=plots) for mode, plots in modes.items()}, env, folder)
        rounds = alternate(sides, args.runs)
    settings = {"weights": Path(weights).name, "img": IMG, "batch": BATCH, "workers": args.workers, "runs": args.runs}
    report("val", MEASURES, rounds, json_file=args.json, settings=settings, peers=peers)


if __name__ == "__main__":
    main()
