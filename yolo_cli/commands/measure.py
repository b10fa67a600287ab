"""Speed and memory of one model file, in a process of its own so that nothing else counts: a JSON line.

`python -m yolo_cli.commands.measure WEIGHTS CFG DEVICE HEIGHT WIDTH IMAGES HALF`
"""

import json
import statistics
import sys
import time
from pathlib import Path

import torch

from yolo_cli.device import select_device
from yolo_cli.export.samples import BUILT_IN, Samples
from yolo_cli.progress import Silent
from yolo_cli.weights.load import load_model

WARM_UP = 5


def measure(
    path: Path, cfg: str, device: torch.device, img: tuple[int, int], images: int, *, half: bool
) -> dict[str, float]:
    """Median milliseconds an image one by one (network and decoding), and the most memory of the process in MB."""
    opened = load_model(path, device, Silent(), cfg=cfg, half=half)
    drawn = [batch for _, batch in Samples(None, BUILT_IN).batches(opened.img or img, 1)]
    spent = []
    with torch.inference_mode():
        for i in range(WARM_UP + images):
            given = drawn[i % len(drawn)].to(device)
            given = given.half() if half else given
            start = time.perf_counter()
            opened.runtime.rows(given)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            spent.append(1000 * (time.perf_counter() - start))
    return {"milliseconds": statistics.median(spent[WARM_UP:]), "megabytes": peak_megabytes()}


def peak_megabytes() -> float:
    """The most memory that this process has held."""
    status = Path("/proc/self/status")
    if status.is_file():  # the other figure of Linux begins with what the parent held
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line[:6] == "VmHWM:") / 1e3
    import resource  # noqa: PLC0415 - not on every system, and wanted here alone

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1e6 if sys.platform == "darwin" else 1e3)


if __name__ == "__main__":
    weights, cfg, device, height, width, images, half = sys.argv[1:]
    found = measure(
        Path(weights), cfg, select_device(device), (int(height), int(width)), int(images), half=half == "half"
    )
    print(json.dumps(found))
