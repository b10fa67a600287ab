"""`yolo info`: print the layers, parameters, GFLOPs and anchors of a model."""

from collections.abc import Sequence
from pathlib import Path

from yolo_cli.config import InfoConfig
from yolo_cli.config.thresholds import SavedThresholds, conf_text
from yolo_cli.dataset.splits import checked_image_size
from yolo_cli.device import select_device
from yolo_cli.errors import UserError
from yolo_cli.export.formats import format_of
from yolo_cli.io import assets
from yolo_cli.model.architecture import Architecture, find_architecture
from yolo_cli.model.build import DetectionModel, count_parameters, gflops, layer_rows
from yolo_cli.progress import Reporter
from yolo_cli.weights.load import Weights, check_cfg, find_weights, load_model, load_weights
from yolo_cli.weights.networks import find_network, is_darknet_cfg

LIST = "list"  # `--cfg list` lists the built-in architectures


def run(config: InfoConfig, reporter: Reporter) -> None:
    """Describe an architecture or a weight file. Raises UserError for the user's mistakes."""
    if config.weights:
        if config.cfg and not is_darknet_cfg(config.cfg):
            fix = "leave one out; only Darknet weights take a .cfg"
            raise UserError("both name a model", where="--cfg --weights", fix=fix)
        path = find_weights(config.weights, reporter=reporter, exported=True)
        if format_of(path):
            _describe_exported(path, config, reporter)
            return
        weights = load_weights(path, cfg=config.cfg, reporter=reporter)
        model = DetectionModel(weights.architecture, weights.names) if weights.part else weights.build_model()
        _describe(model, config, weights, reporter)
    elif config.cfg == LIST:
        for name in assets.names("models"):
            reporter.info(_summary(find_architecture(name)))
    elif config.cfg:
        _describe(DetectionModel(find_network(config.cfg)), config, None, reporter)
    else:
        fix = "give --cfg NAME (--cfg list for the names), or --weights FILE"
        raise UserError("nothing to describe", where="yolo info", fix=fix)


def layer_table(architecture: Architecture) -> list[str]:
    """The lines of the layer table: index, sources, repeats, parameters, block, arguments."""
    lines = [f"{'':>3} {'from':>17} {'n':>2} {'params':>9}  {'module':<24}  arguments"]
    for index, source, repeats, parameters, block, args in layer_rows(architecture):
        lines.append(f"{index:>3} {source:>17} {repeats:>2} {parameters:>9}  {block:<24}  {args}")
    return lines


def _describe(model: DetectionModel, config: InfoConfig, weights: Weights | None, reporter: Reporter) -> None:
    architecture = model.architecture
    img = checked_image_size(config.img, model.stride, reporter)
    for line in layer_table(architecture):
        reporter.info(line)
    reporter.info(
        f"{architecture.name}: {len(architecture.layers)} layers, {count_parameters(model):,} parameters, "
        f"{gflops(model, *img):.3g} GFLOPs at {img[1]}×{img[0]}"
    )
    reporter.info(f"strides {list(model.strides)}")
    anchors = "; ".join(" ".join(f"{value:g}" for value in scale) for scale in model.anchors_in_pixels())
    reporter.info(f"anchors (width height in pixels; one group per scale): {anchors}" if anchors else "no anchors")
    reporter.info(f"{model.nc} classes{_names(weights.names if weights else ())}")
    if weights is None:
        reporter.info("an architecture without weights")
        return
    kind = {"yolo_cli": "a checkpoint of yolo_cli", "pytorch": "a PyTorch checkpoint", "darknet": "Darknet weights"}
    fused = "fused (batch norm folded into the convolutions)" if weights.was_fused else "not fused"
    epoch = f", epoch {weights.epoch + 1}" if weights.epoch >= 0 else ""
    seen = f", {weights.header.seen:,} images seen" if weights.header and weights.header.seen else ""
    size = f", image size {weights.img[1]}×{weights.img[0]}" if weights.img else ""
    reporter.info(f"{weights.path}: {kind[weights.origin]}{epoch}{seen}{size}, {fused}")
    reporter.info(f"license: {weights.license}")
    for line in _thresholds(weights.thresholds, weights.names):
        reporter.info(line)


def _describe_exported(path: Path, config: InfoConfig, reporter: Reporter) -> None:
    """What the metadata of an exported file says; its network is not taken apart."""
    check_cfg(path, config.cfg)
    metadata = load_model(path, select_device("cpu"), reporter).runtime.metadata
    reporter.info(f"architecture {metadata.architecture or 'not stated'}, largest stride {metadata.stride}")
    batch = "any batch size" if metadata.dynamic else f"batches of {metadata.batch}"
    reporter.info(f"{batch}; {len(metadata.names)} classes{_names(metadata.names)}")
    if nms := metadata.nms:
        within = f"confidence threshold {conf_text(nms.conf)}, IoU threshold {nms.iou:g}, {nms.max_det} detections"
        reporter.info(f"NMS inside: {within} per image at most")
    for line in _thresholds(metadata.thresholds, metadata.names):
        reporter.info(line)


def _thresholds(saved: SavedThresholds | None, names: Sequence[str]) -> list[str]:
    if saved is None:
        return []
    own = [f"{n}={t:g}" for n, t in zip(names, saved.per_class, strict=True) if t != saved.overall]
    listed = f"; {', '.join(own)}" if own else ""
    return [f"confidence thresholds (--conf auto): {saved.overall:g}{listed}; {saved.criterion} on {saved.data}"]


def _names(names: Sequence[str]) -> str:
    if all(name.isdigit() for name in names):
        return ""
    return f": {', '.join(names[:10])}{' …' if len(names) > 10 else ''}"


def _summary(architecture: Architecture) -> str:
    model = DetectionModel(architecture)
    strides = list(model.strides)
    size = f"{count_parameters(model):>12,} parameters"
    return f"{architecture.name:<20} {size}  {architecture.nc} classes  strides {strides}"
