"""`yolo info`: print the layers, parameters, GFLOPs and anchors of a model."""

from yolo_cli.config import InfoConfig
from yolo_cli.dataset.splits import checked_image_size
from yolo_cli.errors import UserError
from yolo_cli.io import assets
from yolo_cli.model.architecture import Architecture, find_architecture
from yolo_cli.model.build import DetectionModel, count_parameters, gflops, layer_rows
from yolo_cli.progress import Reporter
from yolo_cli.weights.load import Weights, find_weights, load_weights
from yolo_cli.weights.networks import find_network, is_darknet_cfg

LIST = "list"  # `--cfg list` lists the built-in architectures


def run(config: InfoConfig, reporter: Reporter) -> None:
    """Describe an architecture or a weight file. Raises UserError for the user's mistakes."""
    if config.weights:
        if config.cfg and not is_darknet_cfg(config.cfg):
            fix = "leave one out; only Darknet weights take a .cfg"
            raise UserError("both name a model", where="--cfg --weights", fix=fix)
        weights = load_weights(find_weights(config.weights, reporter=reporter), cfg=config.cfg, reporter=reporter)
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
    reporter.info(f"{model.nc} classes{_names(weights)}")
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
    for line in _thresholds(weights):
        reporter.info(line)


def _thresholds(weights: Weights) -> list[str]:
    saved = weights.thresholds
    if saved is None:
        return []
    own = [f"{n}={t:g}" for n, t in zip(weights.names, saved.per_class, strict=True) if t != saved.overall]
    listed = f"; {', '.join(own)}" if own else ""
    return [f"confidence thresholds (--conf auto): {saved.overall:g}{listed}; {saved.criterion} on {saved.data}"]


def _names(weights: Weights | None) -> str:
    if weights is None or all(name.isdigit() for name in weights.names):
        return ""
    shown = ", ".join(weights.names[:10])
    return f": {shown}{' …' if len(weights.names) > 10 else ''}"


def _summary(architecture: Architecture) -> str:
    model = DetectionModel(architecture)
    strides = list(model.strides)
    size = f"{count_parameters(model):>12,} parameters"
    return f"{architecture.name:<20} {size}  {architecture.nc} classes  strides {strides}"
