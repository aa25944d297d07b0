"""Aggregation, statistics, published numbers and renderers."""
