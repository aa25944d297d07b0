"""Baselines without a network: the input, bicubic, the first reference, non-local means, total variation."""
