"""A degradation: heavy blur, nothing else."""

BLUR = {"sigma": [6, 6], "scale": [1, 1], "noise": [0, 0], "jpeg": [100, 100], "kernels": [["iso", 1]]}
