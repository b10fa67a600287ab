"""Drawing of boxes on images with OpenCV: matplotlib would be slow to import for `yolo detect`."""

from yolo_cli.drawing.boxes import Style, draw_boxes, encode, fitted_text
from yolo_cli.drawing.palette import class_color, class_color_float

__all__ = ["Style", "class_color", "class_color_float", "draw_boxes", "encode", "fitted_text"]
