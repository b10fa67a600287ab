"""Train and judge YOLO object detectors."""

__version__ = "0.1.0"
