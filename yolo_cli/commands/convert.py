"""`yolo convert`: convert between checkpoints, Darknet files and model YAML, or a dataset (`convert_dataset`)."""

import os
from pathlib import Path

from yolo_cli.commands.convert_dataset import convert_dataset
from yolo_cli.config import DATASET_FORMATS, ConvertConfig
from yolo_cli.errors import UserError
from yolo_cli.io.atomic import write_atomically
from yolo_cli.io.yaml_file import write_mapping
from yolo_cli.model.build import DetectionModel
from yolo_cli.progress import Reporter
from yolo_cli.weights import checkpoint
from yolo_cli.weights.darknet.weights import Header, is_darknet, is_prefix, pack_weights
from yolo_cli.weights.darknet.write_cfg import cfg_text
from yolo_cli.weights.license import inherited
from yolo_cli.weights.load import Weights, find_weights, load_weights
from yolo_cli.weights.networks import find_network, is_darknet_cfg

KINDS = "FILE.pt, FILE.weights (with FILE.cfg next to it), FILE.cfg or FILE.yaml"
DEFAULT_IMG = (416, 416)  # (height, width) in [net] of a .cfg if the weights have none; usual for Darknet


def run(config: ConvertConfig, reporter: Reporter) -> list[Path]:
    """Convert the file `config.source` to `config.target`; returns the files written.

    Raises UserError for targets that exist already, and for a model that the target format cannot represent.
    """
    # Set up
    if config.to:
        return [convert_dataset(config, reporter)]
    if Path(config.source).suffix in (".yaml", ".yml", ".data"):
        fix = f"give --to {', '.join(DATASET_FORMATS[:-1])} or {DATASET_FORMATS[-1]} to convert a dataset"
        raise UserError("is no weight file", where=config.source, fix=fix)
    target = Path(os.path.expanduser(config.target))
    outputs = _outputs(target)
    for path in outputs:
        if path.exists():
            raise UserError("exists already", where=path, fix="name another file, or remove it first")
    if not target.parent.is_dir():
        raise UserError("no such folder", where=target.parent, fix="make it first")

    # Convert
    if is_darknet_cfg(config.source):
        _from_cfg(config, target)
    else:
        weights = load_weights(find_weights(config.source, reporter=reporter), cfg=config.cfg, reporter=reporter)
        if config.cfg and weights.origin != "darknet":
            raise UserError("only Darknet weights take a .cfg", where=f"--cfg {config.cfg}", fix="leave it out")
        _write(weights, target)

    # Report
    for path in outputs:
        reporter.info(f"wrote {path}")
    return outputs


def _outputs(target: Path) -> list[Path]:
    if is_prefix(target) or target.suffix not in (".pt", ".weights", ".cfg", ".yaml"):
        raise UserError("unknown format", where=target, fix=f"name it {KINDS}")
    return [target.with_suffix(".cfg"), target] if target.suffix == ".weights" else [target]


def _from_cfg(config: ConvertConfig, target: Path) -> None:
    """Write the YAML of a .cfg, which has no weights."""
    if target.suffix != ".yaml":
        fix = "give its .weights file as IN (the .cfg next to it is found), or name OUT FILE.yaml"
        raise UserError("has no weights", where=config.source, fix=fix)
    write_mapping(target, find_network(config.source).to_mapping())


def _write(weights: Weights, target: Path) -> None:
    model = weights.build_model()
    if target.suffix == ".pt":
        _write_checkpoint(weights, model, target)
        return
    architecture = model.architecture.with_anchors(tuple(tuple(scale) for scale in model.anchors_in_pixels()))
    if target.suffix == ".yaml":
        write_mapping(target, architecture.to_mapping())
        return
    text = cfg_text(architecture, *(weights.img or DEFAULT_IMG)).encode()
    if is_darknet(target):
        data = pack_weights(architecture, model.state_dict(), weights.header or Header())
        write_atomically(target, data, what="weights")
    write_atomically(target.with_suffix(".cfg"), text, what="network")


def _write_checkpoint(weights: Weights, model: DetectionModel, target: Path) -> None:
    extra: dict[str, object] = {}
    if weights.img is not None:
        extra["img"] = list(weights.img)
    if weights.header is not None:
        header = weights.header
        extra["darknet_header"] = [header.major, header.minor, header.revision, header.seen]
    if weights.thresholds is not None:
        extra["thresholds"] = weights.thresholds.to_mapping()
    base = inherited(weights.license)
    checkpoint.save(target, model, epoch=weights.epoch, base_license=base, extra=extra)
