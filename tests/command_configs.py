"""The options of each command."""

from yolo_cli.config import (
    AnchorsConfig,
    BenchmarkConfig,
    CheckConfig,
    DetectConfig,
    ExportConfig,
    InfoConfig,
    TrainConfig,
    ValConfig,
)

CONFIGS = {
    "check": CheckConfig,
    "train": TrainConfig,
    "val": ValConfig,
    "anchors": AnchorsConfig,
    "detect": DetectConfig,
    "info": InfoConfig,
    "export": ExportConfig,
    "benchmark": BenchmarkConfig,
}
