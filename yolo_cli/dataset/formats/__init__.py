"""Datasets in other formats than YOLO txt: one file per format, and the FORMATS table in `formats.py`."""
