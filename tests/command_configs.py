"""The options of each command."""

from yolo_cli.config import (
    AnchorsConfig,
    BenchmarkConfig,
    DetectConfig,
    ExportConfig,
    InfoConfig,
    TrainConfig,
    ValConfig,
)

CONFIGS = {
    "train": TrainConfig,
    "val": ValConfig,
    "anchors": AnchorsConfig,
    "detect": DetectConfig,
    "info": InfoConfig,
    "export": ExportConfig,
    "benchmark": BenchmarkConfig,
}
