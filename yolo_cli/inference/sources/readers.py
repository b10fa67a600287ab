"""Readers by source: files one after the other in one thread (stills decoded by several), live ones each in its own."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from yolo_cli.inference.pipeline import prepare
from yolo_cli.inference.predictor import Predictor
from yolo_cli.inference.prefetch import Budget, Feed
from yolo_cli.inference.sources.frames import Frame, Item, Source
from yolo_cli.inference.sources.images import expected_bytes, read_still
from yolo_cli.inference.sources.sources import Sources
from yolo_cli.inference.sources.streams import read_live, read_screen
from yolo_cli.inference.sources.video import read_video

_COPIES = 2  # of a picture's pixels that exist at once: as read, and drawn on


def start_readers(
    sources: Sources,
    feed: Feed,
    budget: Budget,
    predictor: Predictor,
    *,
    stride: int,
    workers: int,
    warn: Callable[[str], None],
) -> None:
    """Begin to fill the feed."""
    if sources.live:
        for source in sources.items:
            feed.start(_live_reader(source, feed, budget, predictor, stride, warn), f"read {source.name}")
    else:
        feed.start(lambda: _read_files(sources, feed, budget, predictor, stride, workers), "read files")


def _live_reader(
    source: Source, feed: Feed, budget: Budget, predictor: Predictor, stride: int, warn: Callable[[str], None]
) -> Callable[[], None]:
    if source.kind == "screen":
        return lambda: read_screen(source, feed, stride)
    if source.kind == "live":
        return lambda: read_live(source, feed, stride, warn)
    return lambda: _pass_video(source, feed, budget, predictor, stride)


def _read_files(sources: Sources, feed: Feed, budget: Budget, predictor: Predictor, stride: int, workers: int) -> None:
    def still(source: Source, claimed: int) -> Item:
        item = read_still(source, claimed)
        if isinstance(item, Frame):
            if (more := item.pixels.nbytes * _COPIES - claimed) > 0:  # a file that is packed tighter than was guessed
                budget.grow(more)
                item.claimed += more
            if not predictor.settings.tile:
                prepare(item, predictor)
        return item

    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        for source in sources.items:
            if feed.stopped.is_set():
                break
            if source.kind == "video":
                _pass_video(source, feed, budget, predictor, stride)
                continue
            claimed = budget.claim(expected_bytes(source) * _COPIES)
            # Several are decoded at once; the queue keeps their order.
            if not feed.put(pool.submit(still, source, claimed)):
                break


def _pass_video(source: Source, feed: Feed, budget: Budget, predictor: Predictor, stride: int) -> None:
    for item in read_video(source, stride):
        if isinstance(item, Frame):
            item.claimed = budget.claim(item.pixels.nbytes * _COPIES)
            if not predictor.settings.tile:
                prepare(item, predictor)
        if not feed.put(item):
            return
