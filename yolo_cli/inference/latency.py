"""Latency and memory of one model file, measured in a process of its own so that no other model's memory counts."""

import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from yolo_cli.device import select_device
from yolo_cli.errors import UserError
from yolo_cli.export.samples import SYNTHETIC_IMAGES, SampleImages
from yolo_cli.progress import Silent
from yolo_cli.weights.load import load_model

WARM_UP = 5


@dataclass(frozen=True, slots=True)
class Latency:
    """Median milliseconds per image (network and decoding, batch size 1), and the peak memory of the process in MB."""

    milliseconds: float
    megabytes: float
    dtype: str  # of the images that the model was given: "float32" or "float16"


def measure_in_process(path: Path, *, cfg: str, device: str, img: tuple[int, int], images: int, half: bool) -> Latency:
    """Run `measure` in a new process. Raises UserError where it fails there."""
    options = json.dumps({"path": str(path), "cfg": cfg, "device": device, "img": img, "images": images, "half": half})
    command = [sys.executable, "-m", "yolo_cli.inference.latency", options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(f"could not be measured ({last[:160]})", where=path)
    return Latency(**json.loads(done.stdout.strip().splitlines()[-1]))


def measure(path: Path, *, cfg: str, device: torch.device, img: tuple[int, int], images: int, half: bool) -> Latency:
    """Time `images` images one by one, after a warm-up.

    `img` is (height, width), unless the file has a fixed size. `half` runs a checkpoint in half precision.
    """
    opened = load_model(path, device, Silent(), cfg=cfg, half=half)
    samples = [batch for _, batch in SampleImages(None, SYNTHETIC_IMAGES).batches(opened.img or img, 1)]
    dtype = torch.float16 if half else torch.float32
    milliseconds = []
    with torch.inference_mode():
        for i in range(WARM_UP + images):
            image = samples[i % len(samples)].to(device, dtype)
            start = time.perf_counter()
            opened.runtime.predict(image)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            milliseconds.append(1000 * (time.perf_counter() - start))
    return Latency(statistics.median(milliseconds[WARM_UP:]), _peak_megabytes(), str(dtype).removeprefix("torch."))


def _peak_megabytes() -> float:
    status = Path("/proc/self/status")
    if status.is_file():  # on Linux, ru_maxrss would include what the parent process held before the fork
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line[:6] == "VmHWM:") / 1e3
    import resource  # noqa: PLC0415 - not available on Windows

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1e6 if sys.platform == "darwin" else 1e3)


def main() -> None:
    """Measure as the JSON object in the first argument asks, and print the result as JSON."""
    options = json.loads(sys.argv[1])
    latency = measure(
        Path(options.pop("path")),
        device=select_device(options.pop("device")),
        img=tuple(options.pop("img")),
        **options,
    )
    print(json.dumps(asdict(latency)))


if __name__ == "__main__":
    main()
