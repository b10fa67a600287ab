"""Detection: any source in, drawn and written detections out. `command` runs it; `api` is for Python."""
