"""Anchors: how well they suit a data set, and better ones."""
