"""Detection as whole processes: throughput over coco128's val split, one image, NMS alone, memory over a video.

All programs draw and save what they detect, at 640 pixels, confidence threshold 0.25, IoU threshold 0.45. ultralytics
cannot read YOLOv5's own checkpoint. It runs its yolov5n from the YAML file with random weights: the network does the
same work, but there are no detections to draw or suppress, which is to its advantage. NMS alone gets yolov5n's decoded
output for the first images of the split, at confidence threshold 0.001 and IoU threshold 0.6 with several labels per
box, as in validation. Memory is the resident set after a fifth of a 5,000-frame video and at its end.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from side_by_side import (
    OURS,
    Figures,
    Measure,
    add_data_options,
    alternate,
    answer,
    ask,
    copy_dataset,
    environment,
    options,
    peer_pythons,
    report,
    seconds,
    workplace,
)

IMG, CONF, IOU, MAX_DET = 640, 0.25, 0.45, 1000
NMS_IMAGES, NMS_CONF, NMS_IOU, NMS_MAX_DET = 16, 0.001, 0.6, 300
FRAMES, FRAME_SIZE, VIDEO_IMG = 5000, (360, 640), 160
MEASURES = (
    Measure("images per second", "1/s", True, "1.5 × the fastest"),
    Measure("CPU time", "s", False),
    Measure("one image", "s", False, "2.5 s"),
    Measure("NMS per image", "ms", False, "⅓ of the others'"),
    Measure("resident after 1/5", "MB", False),
    Measure("resident at the end", "MB", False, "flat"),
)


def commands(name: str, python: Path | None, weights: str, source: Path, project: Path) -> list[str]:
    """The command line of one program."""
    if name == OURS:
        words = [str(Path(sys.executable).with_name("yolo")), "detect", "--weights", weights, "--img", str(IMG)]
        return [*words, "--source", str(source), "--device", "cpu", "--project", str(project)]
    assert python is not None
    if name == "yolov5":
        words = [str(python.with_name("yolov5")), "detect", "--weights", weights, "--img", str(IMG)]
        words += ["--conf-thres", str(CONF), "--iou-thres", str(IOU), "--max-det", str(MAX_DET), "--device", "cpu"]
        return [*words, "--source", str(source), "--project", str(project)]
    words = [str(python.with_name("yolo")), "predict", "model=yolov5n.yaml", f"source={source}", f"imgsz={IMG}"]
    return [*words, f"conf={CONF}", f"iou={IOU}", f"max_det={MAX_DET}", "device=cpu", "save=True", f"project={project}"]


def whole_process(
    words: Sequence[str], one: Sequence[str], env: Mapping[str, str], folder: Path, count: int
) -> Figures:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    taken = seconds(words, env, folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"images per second": count / taken, "CPU time": used, "one image": seconds(one, env, folder)}


# ---------------------------------------------------------------- NMS alone


def write_raw(weights: str, images: Sequence[Path], out: Path) -> None:
    """Save yolov5n's decoded rows of square letterboxed images: float32 of shape (images, rows, 85)."""
    import numpy as np
    import torch

    from yolo_cli.batch import prepare_images
    from yolo_cli.dataset.images import letterbox, read_image
    from yolo_cli.model.fuse import fuse
    from yolo_cli.weights.load import load_weights

    model = fuse(load_weights(Path(weights)).build_model())
    rows = []
    for path in images:
        canvas, _ = letterbox(read_image(path), (IMG, IMG))
        image = torch.from_numpy(canvas).permute(2, 0, 1)[None]
        with torch.inference_mode():
            rows.append(model.decode(model(prepare_images(image, torch.device("cpu")))).numpy())
    np.save(out, np.concatenate(rows))


def our_nms(rows: Any) -> Callable[[], int]:
    from yolo_cli.boxes.nms import non_max_suppression

    return lambda: sum(
        len(found)
        for found in non_max_suppression(rows, conf=NMS_CONF, iou=NMS_IOU, max_det=NMS_MAX_DET, multi_label=True)
    )


def yolov5_nms(rows: Any) -> Callable[[], int]:
    from yolov5.utils.general import non_max_suppression

    return lambda: sum(
        len(found) for found in non_max_suppression(rows, NMS_CONF, NMS_IOU, multi_label=True, max_det=NMS_MAX_DET)
    )


def ultralytics_nms(rows: Any) -> Callable[[], int]:
    import torch
    from ultralytics.utils.nms import non_max_suppression

    # Its heads have no objectness: rows are box and class scores.
    merged = torch.cat((rows[..., :4], rows[..., 5:] * rows[..., 4:5]), -1).transpose(1, 2).contiguous()
    return lambda: sum(
        len(found)
        for found in non_max_suppression(
            merged.clone(), NMS_CONF, NMS_IOU, multi_label=True, max_det=NMS_MAX_DET, max_time_img=10.0
        )
    )


NMS = {OURS: our_nms, "yolov5": yolov5_nms, "ultralytics": ultralytics_nms}


def nms_worker(side: str, task: Mapping[str, Any]) -> None:
    import numpy as np
    import torch

    torch.set_num_threads(1)
    rows = torch.from_numpy(np.load(task["rows"]))
    with torch.inference_mode():
        # One image at a time, because ultralytics stops after a time limit per batch.
        runs = [NMS[side](rows[i : i + 1]) for i in range(len(rows))]
        found = sum(run() for run in runs)
        best = float("inf")
        for _ in range(3):
            start = time.process_time()
            for run in runs:
                run()
            best = min(best, time.process_time() - start)
    answer({"milliseconds": 1000 * best / len(rows), "found": found})


# ---------------------------------------------------------------- memory


def write_video(path: Path, frames: int) -> None:
    import cv2
    import numpy as np

    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25.0, FRAME_SIZE[::-1])
    small = np.random.default_rng(0).integers(0, 256, (9, 16, 3), np.uint8)
    image = cv2.resize(small, FRAME_SIZE[::-1], interpolation=cv2.INTER_CUBIC)
    for i in range(frames):
        writer.write(np.roll(image, 4 * i, axis=1))
    writer.release()


def resident(command: Sequence[str], frames: int, env: Mapping[str, str], folder: Path) -> Figures:
    """Resident memory of `yolo detect` after a fifth of the frames and at the end, read as its JSON lines arrive."""
    marks = {}
    with subprocess.Popen(command, env=env, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        for number, _ in enumerate(process.stdout, start=1):
            if number in (frames // 5, frames):
                pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
                marks[number] = pages * resource.getpagesize() / 1e6
    if process.returncode:
        raise RuntimeError(f"ended with {process.returncode}")
    return {"resident after 1/5": marks[frames // 5], "resident at the end": marks[frames]}


# ---------------------------------------------------------------- all of it


def main() -> None:
    parser = options(__doc__, runs=3)
    add_data_options(parser, weights=True)
    parser.add_argument("--frames", type=int, default=FRAMES, help="length of the video")
    args = parser.parse_args()
    if args.worker:
        nms_worker(args.worker, json.loads(args.task))
        return
    weights = str(Path(args.weights).absolute())
    peers = peer_pythons(args.peers, ("yolov5", "ultralytics"))
    with workplace() as folder:
        sides: dict[str, Callable[[], Figures]] = {}
        images = copy_dataset(args.data, folder / "data", ("val",)).parent / "images" / "val"
        files = sorted(images.iterdir())
        write_raw(weights, files[:NMS_IMAGES], folder / "rows.npy")
        for name in (OURS, *peers):
            python = peers.get(name)
            env = environment(folder, python)
            project = folder / f"runs_{name}"
            words = commands(name, python, weights, images, project)
            one = commands(name, python, weights, files[0], project)
            seconds(one, env, folder)  # writes settings files and bytecode

            def run(
                name: str = name,
                python: Path | None = python,
                env: Mapping[str, str] = env,
                words: Sequence[str] = words,
                one: Sequence[str] = one,
            ) -> Figures:
                figures = dict(whole_process(words, one, env, folder, len(files)))
                task = {"rows": str(folder / "rows.npy")}
                result = ask(python or sys.executable, __file__, name, task, env, folder)
                print(f"  {name} keeps {result['found']} boxes")
                return {**figures, "NMS per image": result["milliseconds"]}

            sides[name] = run
        rounds = alternate(sides, args.runs)
        write_video(folder / "v.avi", args.frames)
        words = commands(OURS, None, weights, folder / "v.avi", folder / "runs_video")
        memory = resident([*words, "--img", str(VIDEO_IMG), "--json"], args.frames, environment(folder), folder)
        rounds[0][OURS] = {**rounds[0][OURS], **memory}
    settings = {"weights": Path(weights).name, "img": IMG, "images": len(files), "frames": args.frames}
    settings |= {"runs": args.runs, "cores": os.cpu_count()}
    report("detect", MEASURES, rounds, json_file=args.json, settings=settings, peers=peers)


if __name__ == "__main__":
    main()
