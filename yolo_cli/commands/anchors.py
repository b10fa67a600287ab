"""`yolo anchors`: fit anchors to a data set and say how they score beside those in use."""

import os
from pathlib import Path

import numpy as np
from jaxtyping import Float

from yolo_cli.anchors.autoanchor import per_scale
from yolo_cli.anchors.fit import fit_anchors
from yolo_cli.anchors.score import AnchorScore, learnable, score, training_sizes
from yolo_cli.config import AnchorsConfig
from yolo_cli.dataset.splits import load_split, prepare_dataset
from yolo_cli.device import default_workers
from yolo_cli.errors import UserError
from yolo_cli.io.yaml_file import write_mapping
from yolo_cli.model.architecture import Architecture, PlannedLayer, plan_layers, scale_anchors
from yolo_cli.progress import Reporter
from yolo_cli.run.folder import create_run_dir, write_json, write_options
from yolo_cli.weights.darknet.weights import is_darknet
from yolo_cli.weights.load import find_weights, load_weights
from yolo_cli.weights.networks import find_network

DEFAULT_N = 9


def run(config: AnchorsConfig, reporter: Reporter) -> Float[np.ndarray, "n 2"]:
    """Fit as the options say; returns the anchors, sorted by area. Raises UserError for what the user can mend."""
    _check_files(config)
    architecture = _architecture(config)
    strides = tuple(int(planned.stride) for planned in _head_sources(architecture))
    per_head = _own_anchors(architecture)
    if not per_head:
        what = f"{architecture.name} has no anchors"
        raise UserError(what, where=f"--cfg {config.cfg}" if config.cfg else f"--weights {config.weights}")
    own = np.array([v for scale in per_head for v in scale], np.float64).reshape(-1, 2)
    given = config.weights or config.cfg
    n = config.n or (len(own) if given else DEFAULT_N)
    if config.save and n % len(strides):
        what = f"{n} anchors cannot be shared out over {len(strides)} scales"
        raise UserError(what, where="--save", fix="change --n")
    spec = prepare_dataset(config.data, reporter)
    split = load_split(
        spec,
        config.task,
        single_cls=False,
        strict=config.strict,
        workers=default_workers(config.workers, 8),
        reporter=reporter,
    )
    everything = training_sizes(split.index, config.img)
    sizes = learnable(everything)
    if not len(sizes):
        raise UserError(f"split {config.task} holds no boxes", where=spec.source, fix="give another --data or --task")
    if len(sizes) < len(everything):
        reporter.info(f"{len(everything) - len(sizes)} boxes smaller than 2 pixels at --img left out")
    anchors = fit_anchors(sizes, n, thr=config.thr, seed=config.seed, generations=config.gen)
    present, fitted = score(sizes, own, config.thr), score(sizes, anchors, config.thr)
    folder = create_run_dir(config.project, config.name, exist_ok=config.exist_ok)
    shared: tuple[tuple[float, ...], ...] = (tuple(anchors.ravel().tolist()),)
    if n == len(own):
        shared = per_scale(anchors, [len(scale) // 2 for scale in per_head], strides)
    elif n % len(strides) == 0:
        shared = per_scale(anchors, len(strides), strides)
    _say(reporter, architecture, strides, shared, present, fitted)
    _write(config, folder, anchors, shared, fitted, sizes, own)
    if config.save:
        path = Path(os.path.expanduser(config.save))
        mapping = architecture.with_classes(spec.nc).with_anchors(shared).to_mapping() | {"name": path.stem}
        _write_new(path, mapping)
        reporter.info(f"architecture with these anchors in {path}: yolo train --cfg {path} --data {config.data}")
    reporter.info(f"results in {folder}")
    return anchors


def _check_files(config: AnchorsConfig) -> None:
    if config.weights and config.cfg and not is_darknet(Path(config.weights)):
        raise UserError("both name a model", where="--weights --cfg", fix="give one")
    if config.save and Path(os.path.expanduser(config.save)).exists():
        raise UserError("exists already and is left alone", where=f"--save {config.save}", fix="give another name")


def _architecture(config: AnchorsConfig) -> Architecture:
    """The model whose anchors are compared; yolov5s where none is named."""
    if config.weights:
        weights = load_weights(find_weights(config.weights), cfg=config.cfg)
        anchors = weights.build_model().anchors_in_pixels()  # those of the file, which may differ from its YAML's
        return weights.architecture.with_anchors(tuple(tuple(scale) for scale in anchors))
    return find_network(config.cfg or "s")


def _head_sources(architecture: Architecture) -> list[PlannedLayer]:
    planned = plan_layers(architecture)
    return [planned[s] for s in planned[-1].sources]


def _own_anchors(architecture: Architecture) -> tuple[tuple[float, ...], ...]:
    return scale_anchors(architecture.anchors, [planned.stride for planned in _head_sources(architecture)])


def _say(
    reporter: Reporter,
    architecture: Architecture,
    strides: tuple[int, ...],
    shared: tuple[tuple[float, ...], ...],
    present: AnchorScore,
    fitted: AnchorScore,
) -> None:
    """The table: both scores, and the anchors by scale."""
    reporter.info(f"{'anchors':>20} {'best possible recall':>21} {'above threshold':>16} {'fitness':>8}")
    for name, found in ((architecture.name, present), ("fitted", fitted)):
        recall, above = found.best_possible_recall, found.anchors_above_threshold
        reporter.info(f"{name:>20} {recall:>21.4f} {above:>16.2f} {found.fitness:>8.4f}")
    for i, scale in enumerate(shared):
        place = f"stride {strides[i]}" if len(shared) == len(strides) else "all"
        pairs = "  ".join(f"{w:.1f}×{h:.1f}" for w, h in zip(scale[::2], scale[1::2], strict=True))
        reporter.info(f"{place:>20} {pairs}")


def _write(
    config: AnchorsConfig,
    folder: Path,
    anchors: Float[np.ndarray, "n 2"],
    shared: tuple[tuple[float, ...], ...],
    fitted: AnchorScore,
    sizes: Float[np.ndarray, "m 2"],
    own: Float[np.ndarray, "k 2"],
) -> None:
    from yolo_cli.plots.anchors import anchor_figure  # noqa: PLC0415 - matplotlib is slow to import

    write_options(folder / "opt.yaml", config)
    write_json(
        folder / "anchors.json",
        {
            "anchors": anchors.tolist(),
            "fitness": fitted.fitness,
            "best_possible_recall": fitted.best_possible_recall,
            "anchors_above_threshold": fitted.anchors_above_threshold,
            "boxes": len(sizes),
            "img": list(config.img),
            "thr": config.thr,
        },
    )
    _write_new(folder / "anchors.yaml", {"anchors": [list(scale) for scale in shared]}, replace=True)
    anchor_figure(sizes, anchors, own, folder / "anchors.png")


def _write_new(path: Path, mapping: dict[str, object], *, replace: bool = False) -> None:
    try:
        if not replace and path.exists():
            raise UserError("exists already and is left alone", where=path, fix="give another name")
        write_mapping(path, mapping)
    except OSError as error:
        raise UserError(f"cannot be written ({error.strerror})", where=path) from None
