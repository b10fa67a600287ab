"""What all runtimes of exported files have in common."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from yolo_cli.export.metadata import Metadata
from yolo_cli.export.runtime import FileRuntime


class _Recording(FileRuntime):
    """Records how many threads are inside `run` at a time, call by call."""

    def __init__(self, metadata: Metadata, path: Path) -> None:
        super().__init__(metadata, path)
        self.inside, self.most_inside = 0, list[int]()

    def run(self, images: Tensor) -> Tensor:
        self.inside += 1
        time.sleep(0.05)
        self.most_inside.append(self.inside)
        self.inside -= 1
        return images.new_zeros(len(images), 1, 6)


def test_the_first_call_runs_alone_and_later_ones_together() -> None:
    """OpenVINO's binding deadlocks where two threads call it for the first time at once."""
    runtime = _Recording(Metadata(names=("a",), stride=8, img=(8, 8), batch=2, dynamic=True), Path("model"))
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(runtime.predict, [torch.zeros(2, 3, 8, 8)] * 8))
    assert runtime.most_inside[0] == 1
    assert max(runtime.most_inside) > 1
    assert [len(result) for result in results] == [2] * 8
