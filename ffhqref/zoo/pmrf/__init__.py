"""PMRF: SwinIR's posterior mean, then a rectified flow in pixel space by a hourglass transformer."""
