"""Models that leave Python: writing them, running them, and proving that they give the same detections."""
