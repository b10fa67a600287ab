"""Evaluation: average precision as COCO defines it, curves and the confusion matrix."""
