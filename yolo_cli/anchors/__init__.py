"""Anchors: their fitness for a dataset, and fitting them to it."""
