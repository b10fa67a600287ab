"""Boxes and names drawn on pictures with OpenCV alone, so that detecting does not wait for matplotlib."""

from yolo_cli.drawing.boxes import Style, draw_boxes, encode, fitted_text
from yolo_cli.drawing.palette import fraction, palette

__all__ = ["Style", "draw_boxes", "encode", "fitted_text", "fraction", "palette"]
