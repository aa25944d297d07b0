"""Crops, embedders and detectors of faces."""
