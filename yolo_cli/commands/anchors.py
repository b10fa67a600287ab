"""`yolo anchors`: fit anchors to a dataset and compare them with those of a model."""

import os
from pathlib import Path

import numpy as np
from jaxtyping import Float

from yolo_cli.anchors.autoanchor import per_scale
from yolo_cli.anchors.fit import fit_anchors
from yolo_cli.anchors.score import AnchorScore, drop_tiny, score, training_sizes
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


def run(config: AnchorsConfig, reporter: Reporter) -> Float[np.ndarray, "n 2"]:
    """Fit anchors with the options of `config`; returns them in pixels, sorted by area. Raises UserError."""
    # Set up
    _check_files(config)
    architecture = _architecture(config)
    sources = _head_sources(architecture)
    strides = tuple(int(source.stride) for source in sources)
    current_scales = scale_anchors(architecture.anchors, [source.stride for source in sources])
    if not current_scales:
        what = f"{architecture.name} has no anchors"
        raise UserError(what, where=f"--cfg {config.cfg}" if config.cfg else f"--weights {config.weights}")
    current = np.array([v for scale in current_scales for v in scale], np.float64).reshape(-1, 2)
    n = config.n or len(current)
    if config.save and n % len(strides):
        what = f"{n} anchors cannot be divided among {len(strides)} scales"
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
    all_sizes = training_sizes(split.index, config.img)
    sizes = drop_tiny(all_sizes)
    if not len(sizes):
        raise UserError(f"split {config.task} holds no boxes", where=spec.source, fix="give another --data or --task")
    if len(sizes) < len(all_sizes):
        reporter.info(f"{len(all_sizes) - len(sizes)} boxes smaller than 2 pixels at --img left out")

    # Fit
    anchors = fit_anchors(sizes, n, thr=config.thr, seed=config.seed, generations=config.gen)
    if n == len(current):
        scales = per_scale(anchors, [len(scale) // 2 for scale in current_scales], strides)
    elif n % len(strides) == 0:
        scales = per_scale(anchors, len(strides), strides)
    else:
        scales = (tuple(anchors.ravel().tolist()),)
    before, after = score(sizes, current, config.thr), score(sizes, anchors, config.thr)

    # Report
    folder = create_run_dir(config.project, config.name, exist_ok=config.exist_ok)
    for line in _table(architecture.name, strides, scales, before, after):
        reporter.info(line)
    from yolo_cli.plots.anchors import anchor_figure  # noqa: PLC0415 - matplotlib is slow to import

    write_options(folder / "opt.yaml", config)
    write_json(folder / "anchors.json", _summary(config, anchors, sizes, after))
    write_mapping(folder / "anchors.yaml", {"anchors": [list(scale) for scale in scales]})
    anchor_figure(sizes, anchors, current, folder / "anchors.png")
    if config.save:
        path = Path(os.path.expanduser(config.save))
        mapping = architecture.with_classes(spec.nc).with_anchors(scales).to_mapping() | {"name": path.stem}
        _check_new(path)  # it can have been made since the start
        write_mapping(path, mapping)
        reporter.info(f"architecture with these anchors in {path}: yolo train --cfg {path} --data {config.data}")
    reporter.info(f"results in {folder}")
    return anchors


def _check_files(config: AnchorsConfig) -> None:
    if config.weights and config.cfg and not is_darknet(Path(config.weights)):
        raise UserError("both name a model", where="--weights --cfg", fix="give one")
    if config.save:
        _check_new(Path(os.path.expanduser(config.save)))


def _architecture(config: AnchorsConfig) -> Architecture:
    """The architecture whose anchors are compared: that of --weights or --cfg, or yolov5s."""
    if config.weights:
        weights = load_weights(find_weights(config.weights), cfg=config.cfg)
        anchors = weights.build_model().anchors_in_pixels()  # stored ones can differ from those of the architecture
        return weights.architecture.with_anchors(tuple(tuple(scale) for scale in anchors))
    return find_network(config.cfg or "s")


def _head_sources(architecture: Architecture) -> list[PlannedLayer]:
    planned = plan_layers(architecture)
    return [planned[s] for s in planned[-1].sources]


def _table(
    name: str,
    strides: tuple[int, ...],
    scales: tuple[tuple[float, ...], ...],
    current: AnchorScore,
    fitted: AnchorScore,
) -> list[str]:
    """Both scores, then the fitted anchors of each scale."""
    lines = [f"{'anchors':>20} {'best possible recall':>21} {'above threshold':>16} {'fitness':>8}"]
    for title, of in ((name, current), ("fitted", fitted)):
        recall, above = of.best_possible_recall, of.anchors_above_threshold
        lines.append(f"{title:>20} {recall:>21.4f} {above:>16.2f} {of.fitness:>8.4f}")
    for i, scale in enumerate(scales):
        title = f"stride {strides[i]}" if len(scales) == len(strides) else "all"
        pairs = "  ".join(f"{w:.1f}×{h:.1f}" for w, h in zip(scale[::2], scale[1::2], strict=True))
        lines.append(f"{title:>20} {pairs}")
    return lines


def _summary(
    config: AnchorsConfig, anchors: Float[np.ndarray, "n 2"], sizes: Float[np.ndarray, "m 2"], fitted: AnchorScore
) -> dict[str, object]:
    """The content of anchors.json."""
    return {
        "anchors": anchors.tolist(),
        "fitness": fitted.fitness,
        "best_possible_recall": fitted.best_possible_recall,
        "anchors_above_threshold": fitted.anchors_above_threshold,
        "boxes": len(sizes),
        "img": list(config.img),
        "thr": config.thr,
    }


def _check_new(path: Path) -> None:
    if path.exists():
        raise UserError("exists already and is not overwritten", where=f"--save {path}", fix="give another name")
