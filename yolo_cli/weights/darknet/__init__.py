"""Darknet's files: .cfg networks and .weights, read and written."""
