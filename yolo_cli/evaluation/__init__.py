"""Judging detections: average precision, curves and confusion; `referee` asks pycocotools the same."""
