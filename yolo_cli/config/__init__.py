"""Every option and hyperparameter with its default and its limits, one frozen dataclass per command.

Field names equal option names. Values are checked when a config is made, on the command line or in Python: a bad one
raises a UserError that names the option.
"""

from yolo_cli.config.anchors import AnchorsConfig
from yolo_cli.config.benchmark import BenchmarkConfig
from yolo_cli.config.check import CheckConfig
from yolo_cli.config.checks import SPLITS
from yolo_cli.config.compare import CompareConfig
from yolo_cli.config.convert import DATASET_FORMATS, ConvertConfig
from yolo_cli.config.detect import DetectConfig
from yolo_cli.config.export import OPSETS, ExportConfig
from yolo_cli.config.hyperparameters import Hyperparameters
from yolo_cli.config.info import InfoConfig
from yolo_cli.config.report import ReportConfig
from yolo_cli.config.split import SplitConfig
from yolo_cli.config.train import AUTO_BATCH, CACHES, LOSSES, NAN_POLICIES, OPTIMIZERS, TrainConfig
from yolo_cli.config.val import ValConfig

__all__ = [
    "AUTO_BATCH",
    "CACHES",
    "DATASET_FORMATS",
    "LOSSES",
    "NAN_POLICIES",
    "OPSETS",
    "OPTIMIZERS",
    "SPLITS",
    "AnchorsConfig",
    "BenchmarkConfig",
    "CheckConfig",
    "CompareConfig",
    "ConvertConfig",
    "DetectConfig",
    "ExportConfig",
    "Hyperparameters",
    "InfoConfig",
    "ReportConfig",
    "SplitConfig",
    "TrainConfig",
    "ValConfig",
]
