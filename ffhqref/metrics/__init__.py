"""Metrics, each with a signature, and the scoring of cases."""
