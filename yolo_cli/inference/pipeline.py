"""The flow of detection: sources → prefetch → predictor → writer.

    reader threads    read, decode and letterbox frames                 prefetch.py
    main thread       groups frames of one input size into batches      this file
    network threads   run the predictor on a batch                      predictor.py
    writer thread     takes frames in input order and saves them        writers/result_writer.py

Each step hands on through a bounded queue, so memory stays flat however many frames there are. MEMORY also limits the
bytes of decoded frames. On a machine with two cores the queues alone would let 18 images of 36 megapixels be in memory
at once, which with drawn copies is 3.9 GB; on a GPU, where they hold whole batches, more.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import torch

from yolo_cli.device import default_workers
from yolo_cli.inference.predictor import Predictor, Timing
from yolo_cli.inference.prefetch import Prefetch, start_readers
from yolo_cli.inference.sources.frames import Frame, Source
from yolo_cli.inference.sources.sources import Sources
from yolo_cli.inference.writers.features import feature_sheets
from yolo_cli.inference.writers.result_writer import Outputs, ResultWriter
from yolo_cli.inference.writers.summary import Summary

GPU_BATCH = 16
MAX_WORKERS = 8
MEMORY = 2**30  # bytes of decoded frames at a time
_POLL = 0.05  # seconds between looks at what else there is to do while nothing arrives
_WINDOW = 4  # batches; a frame of a rare size waits at most for so many others
_READERS_END = 6.0  # seconds: a little more than a read from a stalled stream may take


@dataclass(frozen=True, slots=True)
class PipelineOptions:
    """Options of `yolo detect` that concern the flow."""

    batch: int = 0  # 0: 16 on a GPU, 1 on the CPU
    vid_stride: int = 1
    stream_buffer: bool = False
    visualize: bool = False


@dataclass(slots=True, eq=False)
class Batch:
    """Frames of one input size. `done` completes when their detections are there."""

    first: int  # position of the first frame among everything that was read
    frames: list[Frame] = field(default_factory=list)
    done: Future[None] = field(default_factory=Future)


def detect(
    sources: Sources,
    predictor: Predictor,
    outputs: Outputs,
    summary: Summary,
    options: PipelineOptions,
    warn: Callable[[str], None],
) -> None:
    """Detect on every frame of `sources` and write `outputs`. However it ends, the files are complete.

    Raises UserError for what a reader or the writer cannot recover from.
    """
    cores, on_cpu = default_workers(-1, MAX_WORKERS), predictor.device.type == "cpu"
    size = options.batch or (1 if on_cpu else GPU_BATCH)
    # On the CPU, several images in parallel with few threads each have a higher throughput than one image in all
    # threads. One image in all threads has the lower latency, which counts for a live frame or a single image.
    single = sources.live or (sources.count == 1 and next(iter(sources.items)).kind == "image")
    workers = cores if on_cpu and not single else 1
    threads = torch.get_num_threads()
    # Each live source needs room for one frame, else it waits for the others with a frame that grows old.
    room = max(2 * size, 2 * workers, 8, sources.count or 0 if sources.live else 0)

    def preprocess(frame: Frame) -> None:
        if not predictor.settings.tile:
            start = time.perf_counter()
            frame.input = predictor.preprocess(frame.pixels, bgr=frame.bgr)
            frame.milliseconds["prepare"] = 1000 * (time.perf_counter() - start)

    prefetch = Prefetch(room, newest_only=sources.live and not options.stream_buffer, memory=MEMORY)
    # Larger than the window of `_batches`: what the writer waits for is then always submitted already.
    writer = ResultWriter(outputs, summary, prefetch.release, max_queued=(_WINDOW + 2) * size, workers=cores)
    network = ThreadPoolExecutor(workers, "network", torch.set_num_threads, (max(1, threads // workers),))
    try:
        start_readers(prefetch, sources, preprocess, stride=options.vid_stride, decoders=cores, warn=warn)
        eager = sources.live or not sources.patient
        frames = 1 if predictor.settings.tile else size  # the tiles of an image fill batches of their own
        for batch in _batches(prefetch, preprocess, writer, frames, eager=eager, visualize=options.visualize):
            running = network.submit(_detect, predictor, batch, size)
            if sources.live:
                wait([running])  # frames that arrive meanwhile replace each other; the newest one is next
        network.shutdown()
    finally:
        prefetch.stop()
        network.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
        try:
            writer.close()
        finally:  # a reader that still runs when Python ends would abort the process
            prefetch.join(_READERS_END)


def _batches(
    prefetch: Prefetch,
    preprocess: Callable[[Frame], None],
    writer: ResultWriter,
    size: int,
    *,
    eager: bool,
    visualize: bool,
) -> Iterator[Batch]:
    """Batches of up to `size` frames, all of one input size; every item also goes to the writer, in input order.

    With `eager`, frames never wait for others to fill a batch.
    """
    waiting: dict[tuple[int, int], Batch] = {}
    seen: set[Source] = set()
    position = 0
    while not writer.stopped:
        try:
            item = prefetch.get(0.0 if eager and waiting else _POLL)
        except EOFError:
            yield from waiting.values()
            return
        if item is None:
            if eager or prefetch.needs_memory:
                yield from waiting.values()
                waiting.clear()
            continue
        position += 1
        if isinstance(item, Frame):
            if item.input is None:  # of a live source: only what is not dropped is worth preprocessing
                preprocess(item)
            if visualize and item.source not in seen:
                item.visualize = True
                seen.add(item.source)
            batch = waiting.setdefault(item.input.size if item.input else (0, 0), Batch(position))
            batch.frames.append(item)
            writer.put(item, batch.done)
        else:
            writer.put(item)
        for key, batch in list(waiting.items()):
            if len(batch.frames) >= size or position - batch.first >= _WINDOW * size:
                yield waiting.pop(key)


def _detect(predictor: Predictor, batch: Batch, max_tiles: int) -> None:
    """Fill in the detections of a batch. An error goes to whoever waits for `batch.done`."""
    timing, frames = Timing(), batch.frames
    try:
        if predictor.settings.tile:
            for frame in frames:
                frame.detections = predictor.predict_tiled(frame.pixels, bgr=frame.bgr, batch=max_tiles, timing=timing)
        else:
            inputs = [frame.input for frame in frames if frame.input is not None]
            for frame, found in zip(frames, predictor.predict(inputs, timing), strict=True):
                frame.detections = found
        for frame in frames:
            frame.milliseconds["network"] = timing.network / len(frames)
            frame.milliseconds["nms"] = timing.nms / len(frames)
            if frame.visualize and predictor.model is not None:
                model_input = frame.input or predictor.preprocess(frame.pixels, bgr=frame.bgr)
                frame.features = feature_sheets(predictor.model, model_input, predictor.device)
            frame.input = None
    except BaseException as error:
        batch.done.set_exception(error)
    else:
        batch.done.set_result(None)
