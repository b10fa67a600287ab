"""Time and fitness of fitting nine anchors to 860,000 box sizes, distributed like COCO's: ours and yolov5's.

python benchmarks/anchors.py [--peers DIR] [--boxes N] [--generations N] [--json FILE]
"""

import argparse
import json
import resource
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from yolo_cli.anchors.fit import fit_anchors
from yolo_cli.anchors.score import score
from yolo_cli.run.provenance import machine, versions

IMG, N, THR = 640, 9, 4.0

# Runs in the peer's environment, with a dataset object that has the attributes its fitter needs.
PEER = """
import json, sys, time
import numpy as np
from yolov5.utils.autoanchor import kmean_anchors

class Boxes:
    def __init__(self, sizes):
        self.shapes = np.full((len(sizes), 2), 640.0)
        whole = np.zeros((len(sizes), 5)); whole[:, 3:] = sizes / 640
        self.labels = list(whole[:, None])

data = Boxes(np.load(sys.argv[1]))
start = time.perf_counter()
anchors = kmean_anchors(data, n=9, img_size=640, thr=4.0, gen=int(sys.argv[2]), verbose=False)
print("RESULT" + json.dumps({"seconds": time.perf_counter() - start, "anchors": np.asarray(anchors).tolist()}))
"""


def box_sizes(count: int) -> np.ndarray:
    """Sizes from five log-normal clusters, most of them small, none larger than the image."""
    random = np.random.default_rng(0)
    centers = np.log([[12, 14], [28, 40], [60, 60], [120, 160], [330, 280]])
    spread = np.array([0.45, 0.5, 0.6, 0.5, 0.35])
    kind = random.choice(5, count, p=[0.33, 0.27, 0.2, 0.13, 0.07])
    sizes = np.exp(centers[kind] + random.normal(0, 1, (count, 2)) * spread[kind, None])
    return np.clip(sizes, 2.0, IMG)


def peer_fit(python: Path, sizes: np.ndarray, generations: int) -> tuple[float, np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/sizes.npy", sizes)
        command = [str(python), "-c", PEER, f"{folder}/sizes.npy", str(generations)]
        output = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder).stdout
    result = json.loads(output.rpartition("RESULT")[2])
    return result["seconds"], np.array(result["anchors"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="folder of the peers' environments (see peers.sh)")
    parser.add_argument("--boxes", type=int, default=860_000)
    parser.add_argument("--generations", type=int, default=1000, help="generations of the peer's fitter")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    sizes = box_sizes(args.boxes)
    start = time.perf_counter()
    anchors = fit_anchors(sizes, N, thr=THR)
    rows = {"yolo_cli": {"seconds": time.perf_counter() - start, "fitness": score(sizes, anchors, THR).fitness}}
    rows["yolo_cli"]["peak_gigabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    if args.peers:
        seconds, theirs = peer_fit(args.peers / "yolov5/bin/python", sizes, args.generations)
        rows["yolov5"] = {"seconds": seconds, "fitness": score(sizes, theirs, THR).fitness}
        print(f"× faster: {seconds / rows['yolo_cli']['seconds']:.1f}")
    else:
        print("without --peers: only ours")
    for name, row in rows.items():
        print(f"{name:>10}", ", ".join(f"{key} {value:.4g}" for key, value in row.items()))
    if args.json:
        import torch

        content = {"machine": machine(torch.device("cpu")), "versions": versions(), "boxes": args.boxes, "rows": rows}
        args.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
