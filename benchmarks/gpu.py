"""Measurements on a GPU: training, its loader, memory, NMS and evaluation; one call takes up to 8 minutes.

Training uses the Trainer of `yolo train` on drawn images: networks n, s and m in float32, in mixed precision and
compiled; the share of the time in which the GPU computes; the share spent waiting for the loader, by number of
workers; memory by batch.

Without CUDA it prints a line and exits with status 0; `--device cpu --quick` tests the script with everything small.
Rates of steps are the median of `--runs` repetitions of a timed loop that begins and ends with a synchronization.
Memory is the peak of the allocator in each case. Images are noise, with 12 boxes each.
"""

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gpu_training import Steps, busy_share, evaluate, precision, trainer, waiting_share
from side_by_side import OURS, Measure, options, report


def main() -> None:
    parser = options(__doc__, runs=3)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu to test the script")
    parser.add_argument("--quick", action="store_true", help="small sizes, few steps")
    parser.add_argument("--cfg", default="s", help="architecture of the cases that use one")
    parser.add_argument("--minutes", type=float, default=8, help="no case begins after so many minutes")
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 32, 64, 128], help="batch sizes to train with")
    parser.add_argument("--no-compile", action="store_true", help="skip torch.compile")
    args = parser.parse_args()
    import torch

    if args.device != "cpu" and not torch.cuda.is_available():
        print("no GPU; `--device cpu --quick` tests the script")
        return
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args, Path(folder))
        figures = bench.run()
    measures = [Measure(name, unit, up) for name, (_, unit, up) in figures.items()]
    rounds = [
        {OURS: {name: values[i] for name, (values, _, _) in figures.items() if i < len(values)}}
        for i in range(args.runs)
    ]
    settings = {"device": args.device, "quick": args.quick, "cfg": args.cfg, "img": bench.img, "runs": args.runs}
    report("gpu", measures, rounds, json_file=args.json, settings=settings)


class Bench:
    """The cases; each adds its values to `figures`: name → values, unit, whether higher is better."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        import torch

        self.args = args
        self.device = torch.device(args.device)
        self.cuda = self.device.type == "cuda"
        self.img = 64 if args.quick else 640
        self.steps = 2 if args.quick else 20
        self.batches = [2, 4] if args.quick else args.batches
        self.folder, self.started = folder, time.perf_counter()
        self.figures: dict[str, tuple[list[float], str, bool]] = {}

    def run(self) -> dict[str, tuple[list[float], str, bool]]:
        """All cases. One that runs out of memory is reported and skipped."""
        middle = self.batches[len(self.batches) // 2]
        cfgs = ("n",) if self.args.quick else ("n", "s", "m")
        for cfg in cfgs:
            for amp in (True, False):
                self._case(self.train, middle, cfg=cfg, amp=amp)
        for workers in (0, 2) if self.args.quick else (2, 4, 8, 16):
            self._case(self.loader, middle, workers=workers)
        for batch in self.batches:
            if batch != middle:
                self._case(self.train, batch, cfg=self.args.cfg, amp=True)
        self._case(self.evaluation, middle)
        for half in (True, False):
            for channels_last in (True, False):
                self._case(self.infer, 4 if self.args.quick else 32, half=half, channels_last=channels_last)
        for count in (200,) if self.args.quick else (1_000, 10_000, 30_000):
            self._case(self.nms, count)
        self._case(self.batch_nms, 2 if self.args.quick else 32)
        if not self.args.no_compile:
            self._case(self.compiled, 2 if self.args.quick else 32)
            for cfg in () if self.args.quick else cfgs:
                self._case(self.train, middle, cfg=cfg, amp=True, compiled=True)
        return self.figures

    def train(self, batch: int, *, cfg: str, amp: bool, compiled: bool = False) -> None:
        """Images per second of a step, the share of the time in which the device computes, and peak memory."""
        name = f"train {cfg}, batch {batch}, {'amp' if amp else 'float32'}{', compiled' if compiled else ''}"
        training = trainer(self.folder, self.device, cfg, batch, self.img, amp=amp, compiled=compiled)
        with precision(amp=amp):
            step = Steps(training)
            start = time.perf_counter()
            step()
            self._synchronize()
            if compiled:
                self.figures[f"{name}: first step"] = ([time.perf_counter() - start], "s", False)
            self._measure(name, batch, step)
            self.figures[f"{name}: device busy"] = ([busy_share(step, self.device, self.steps)], "%", True)

    def loader(self, batch: int, *, workers: int) -> None:
        """Images per second of a training from files, and the share of the time spent waiting for the loader."""
        training = trainer(self.folder, self.device, self.args.cfg, batch, self.img, amp=True, workers=workers)
        images, waiting = waiting_share(training, 2 if self.args.quick else 20)
        name = f"train {self.args.cfg} from files, batch {batch}, {workers} workers"
        self.figures[name] = ([images], "images/s", True)
        self.figures[f"{name}: waiting"] = ([waiting], "%", False)
        print(f"  {name}: {images:.4g} images/s, {waiting:.0f}% of the time waiting", flush=True)

    def evaluation(self, batch: int) -> None:
        """Images per second of the evaluation after an epoch, with its loader."""
        training = trainer(self.folder, self.device, self.args.cfg, batch, self.img, amp=True)
        images, seconds = evaluate(training)
        self.figures["evaluation after an epoch"] = ([images / seconds], "images/s", True)
        print(f"  evaluation after an epoch: {images / seconds:.4g} images/s", flush=True)

    def infer(self, batch: int, *, half: bool, channels_last: bool) -> None:
        """Images per second of the fused model with decoding; half precision on the CPU is bfloat16 autocast."""
        import torch

        from yolo_cli.model.fuse import fuse

        model = fuse(self._model(channels_last=channels_last).eval())
        images = self._images(batch, channels_last=channels_last)
        if channels_last:
            model = model.to(memory_format=torch.channels_last)
        if half and self.cuda:
            model, images = model.half(), images.half()

        def step() -> None:
            with torch.inference_mode(), self._autocast(enabled=half and not self.cuda):
                model.decode(model(images))

        name = f"infer, batch {batch}, {'half' if half else 'float32'}, {_layout(channels_last)}"
        self._measure(name, batch, step)

    def compiled(self, batch: int) -> None:
        """The fused model with torch.compile: seconds to compile, and images per second with and without it."""
        import torch

        from yolo_cli.model.fuse import fuse

        model = fuse(self._model(channels_last=True).eval())
        images = self._images(batch, channels_last=True)
        if self.cuda:
            model, images = model.half(), images.half()
        forward = torch.compile(model)

        def step() -> None:
            with torch.inference_mode():
                forward(images)

        start = time.perf_counter()
        step()
        self._synchronize()
        self.figures["torch.compile, first call"] = ([time.perf_counter() - start], "s", False)
        self._measure(f"infer without decoding, batch {batch}, torch.compile", batch, step)

        def plain() -> None:
            with torch.inference_mode():
                model(images)

        self._measure(f"infer without decoding, batch {batch}, plain", batch, plain)

    def nms(self, count: int) -> None:
        """Milliseconds of one NMS over `count` candidates of 80 classes."""
        import torch

        from yolo_cli.boxes.nms import nms

        generator = torch.Generator().manual_seed(0)
        corner = torch.rand(count, 2, generator=generator) * 540
        xyxy = torch.cat((corner, corner + 10 + torch.rand(count, 2, generator=generator) * 90), 1).to(self.device)
        confidence = torch.rand(count, generator=generator).to(self.device)
        class_id = torch.randint(80, (count,), generator=generator).to(self.device)
        self._measure(f"nms, {count:,} candidates", 0, lambda: nms(xyxy, confidence, class_id, 0.6))

    def batch_nms(self, batch: int) -> None:
        """Images per second of NMS on the decoded output of a batch, as in validation."""
        import torch

        from yolo_cli.boxes.nms import non_max_suppression

        rows = sum((self.img // stride) ** 2 * 3 for stride in (8, 16, 32))
        generator = torch.Generator().manual_seed(0)
        decoded = torch.rand(batch, rows, 85, generator=generator)
        decoded[..., :2] *= self.img
        decoded[..., 2:4] = decoded[..., 2:4] * 90 + 10
        decoded[..., 4] = decoded[..., 4] ** 60  # few are confident, as with a trained detector
        decoded[..., 5:] = decoded[..., 5:] ** 40
        decoded = decoded.to(self.device)

        def step() -> None:
            non_max_suppression(decoded, conf=0.001, iou=0.6, max_det=300, multi_label=True)

        self._measure(f"NMS of validation, batch {batch}", batch, step)

    # ------------------------------------------------------------ parts

    def _model(self, *, channels_last: bool) -> Any:
        import torch

        from yolo_cli.model.architecture import find_architecture
        from yolo_cli.model.build import DetectionModel

        torch.manual_seed(0)
        model = DetectionModel(find_architecture("n" if self.args.quick else self.args.cfg)).to(self.device)
        return model.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)

    def _images(self, batch: int, *, channels_last: bool) -> Any:
        import torch

        images = torch.rand(batch, 3, self.img, self.img, generator=torch.Generator().manual_seed(0)).to(self.device)
        return images.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)

    def _autocast(self, *, enabled: bool) -> Any:
        import torch

        return torch.autocast(self.device.type, torch.float16 if self.cuda else torch.bfloat16, enabled=enabled)

    def _measure(self, name: str, images: int, step: Callable[[], object]) -> None:
        """Time a step, in images per second, or in milliseconds if `images` is 0; and measure its peak memory."""
        for _ in range(1 if self.args.quick else 5):
            step()
        values = []
        for _ in range(self.args.runs):
            self._synchronize()
            start = time.perf_counter()
            for _ in range(self.steps):
                step()
            self._synchronize()
            each = (time.perf_counter() - start) / self.steps
            values.append(images / each if images else 1000 * each)
        self.figures[name] = (values, "images/s" if images else "ms", bool(images))
        line = f"  {name}: {statistics.median(values):.4g} {self.figures[name][1]}"
        if self.cuda:
            import torch

            peak = torch.cuda.max_memory_allocated(self.device) / 2**30
            self.figures[f"{name}: peak memory"] = ([peak], "GiB", False)
            line += f", {peak:.2f} GiB"
        print(line, flush=True)

    def _case(self, case: Callable[..., None], size: int, **settings: Any) -> None:
        import torch

        if time.perf_counter() - self.started > 60 * self.args.minutes:
            print(f"  {case.__name__} {size} {settings}: not begun, the time is up")
            return
        with self._fresh():
            try:
                case(size, **settings)
            except torch.OutOfMemoryError:
                print(f"  {case.__name__} {size} {settings}: does not fit into memory")
            except RuntimeError as error:
                print(f"  {case.__name__} {size} {settings}: failed, {str(error).splitlines()[0]}")

    @contextmanager
    def _fresh(self) -> Iterator[None]:
        """Free the memory of earlier cases."""
        import torch

        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        yield
        gc.collect()

    def _synchronize(self) -> None:
        if self.cuda:
            import torch

            torch.cuda.synchronize(self.device)


def _layout(channels_last: bool) -> str:
    return "channels last" if channels_last else "channels first"


if __name__ == "__main__":
    main()
